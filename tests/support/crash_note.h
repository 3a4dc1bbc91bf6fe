// A line that a test prints when it dies in the middle: how to come back to the input it was at.
//
// Call PrintCrashNoteOnDeath once, then SetCrashNote before each input. Signals, sanitizers'
// reports and SIGALRM all end in the line, on standard error. One thread; nothing is allocated.
#pragma once

#include <signal.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>

// In sanitizer builds; they end the process without a signal.
extern "C" __attribute__((weak)) void __sanitizer_set_death_callback(void (*callback)());  // NOLINT

namespace sumac::testing {

inline char crash_note[160];  // NOLINT: a signal handler reads it

inline void PrintCrashNote() {
  const ssize_t ignored = write(STDERR_FILENO, crash_note, strlen(crash_note));
  static_cast<void>(ignored);
}

inline void PrintCrashNoteOnDeath() {
  for (const int signal : {SIGABRT, SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGALRM}) {
    ::signal(signal, [](int caught) {
      PrintCrashNote();
      ::signal(caught, SIG_DFL);
      raise(caught);
    });
  }
  if (__sanitizer_set_death_callback != nullptr) __sanitizer_set_death_callback(PrintCrashNote);
}

__attribute__((format(printf, 1, 2))) inline void SetCrashNote(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  std::vsnprintf(crash_note, sizeof(crash_note), format, arguments);
  va_end(arguments);
}

}  // namespace sumac::testing
