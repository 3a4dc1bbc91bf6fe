# How every Sumac target is made: one place for warnings, include paths, sanitizers and test registration.

add_library(sumac_options INTERFACE)
target_compile_options(sumac_options INTERFACE
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-qual
  $<$<BOOL:${SUMAC_WERROR}>:-Werror>)
if(SUMAC_SANITIZE)
  target_compile_options(sumac_options INTERFACE -fsanitize=${SUMAC_SANITIZE} -fno-omit-frame-pointer
    -fno-sanitize-recover=all)
  target_link_options(sumac_options INTERFACE -fsanitize=${SUMAC_SANITIZE})
endif()

# GCC's generic tuning zeroes a struct of some hundred bytes (a work request, a packet's header) with `rep stos`, and the
# load of a field right after that waits for the end of it: 15 ns each, several times a message. This tuning uses vector
# stores; the code runs on every x86-64 processor all the same.
if(CMAKE_SYSTEM_PROCESSOR STREQUAL "x86_64" AND NOT SUMAC_SANITIZE)
  set(sumac_library_tuning -mtune=skylake)
endif()

# sumac_library(NAME SOURCES ... [DEPS ...] [PRIVATE_DEPS ...]): a static library, installed and exported as sumac::NAME.
function(sumac_library name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS;PRIVATE_DEPS" ${ARGN})
  add_library(sumac_${name} STATIC ${ARG_SOURCES})
  add_library(sumac::${name} ALIAS sumac_${name})
  set_target_properties(sumac_${name} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(sumac_${name} PUBLIC
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}/sumac>)
  target_compile_features(sumac_${name} PUBLIC cxx_std_20)
  target_compile_options(sumac_${name} PRIVATE ${sumac_library_tuning})
  target_link_libraries(sumac_${name} PUBLIC ${ARG_DEPS}
    PRIVATE ${ARG_PRIVATE_DEPS} $<BUILD_INTERFACE:sumac_options>)
  install(TARGETS sumac_${name} EXPORT SumacTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
endfunction()

# sumac_program(NAME SOURCES ... DEPS ...): an executable in build/bin, installed into bin.
function(sumac_program name)
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} sumac_options)
  install(TARGETS ${name} RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
endfunction()

# sumac_add_test(NAME [GRPC] COMMAND ... [LABELS ...] [TIMEOUT seconds]): a CTest entry. In a sanitizer build its name begins
# with asan. or tsan. and it has that label too, so that one CTest run can cover several builds (scripts/test).
# GRPC: gRPC runs in it, so it is no test of a ThreadSanitizer build: Debian's gRPC and Abseil are not instrumented, and
# every hand-over inside them would be reported. Tests with the fake bootstrap run the same threads of ours there.
function(sumac_add_test name)
  cmake_parse_arguments(ARG "GRPC" "TIMEOUT" "COMMAND;LABELS" ${ARGN})
  if(ARG_GRPC AND SUMAC_SANITIZE MATCHES thread)
    return()
  endif()
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  if(SUMAC_SANITIZE MATCHES thread)
    set(sanitizer tsan)
  elseif(SUMAC_SANITIZE)
    set(sanitizer asan)
  endif()
  if(SUMAC_SANITIZE)
    set(name ${sanitizer}.${name})
    list(APPEND ARG_LABELS ${sanitizer})
    math(EXPR ARG_TIMEOUT "${ARG_TIMEOUT} * 3")
  endif()
  add_test(NAME ${name} COMMAND ${ARG_COMMAND})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} LABELS "${ARG_LABELS}"
    ENVIRONMENT "UBSAN_OPTIONS=print_stacktrace=1")
endfunction()

# sumac_test(NAME [GRPC] SOURCES ... DEPS ... [LABELS ...] [TIMEOUT seconds] [ARGS ...]): a GoogleTest program, one CTest entry.
# Real-NIC tests share UDP port 4791 safely, so tests may run side by side.
function(sumac_test name)
  if(NOT SUMAC_BUILD_TESTS)
    return()
  endif()
  cmake_parse_arguments(ARG "GRPC" "TIMEOUT" "SOURCES;DEPS;LABELS;ARGS" ${ARGN})
  if(ARG_GRPC AND SUMAC_SANITIZE MATCHES thread)
    return()
  endif()
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/tests)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} GTest::gtest GTest::gmock GTest::gtest_main sumac_options)
  sumac_add_test(${name} COMMAND ${name} ${ARG_ARGS} LABELS ${ARG_LABELS} TIMEOUT ${ARG_TIMEOUT})
endfunction()

# sumac_benchmark(NAME SOURCES ... DEPS ...): a Google Benchmark program in build/bench; built, never run, by the tests.
function(sumac_benchmark name)
  if(NOT SUMAC_BUILD_TESTS OR SUMAC_SANITIZE)
    return()
  endif()
  cmake_parse_arguments(ARG "" "" "SOURCES;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SOURCES})
  set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR}/bench)
  target_link_libraries(${name} PRIVATE ${ARG_DEPS} benchmark::benchmark_main sumac_options)
endfunction()
