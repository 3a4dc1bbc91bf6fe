// The machine's own libibverbs, which the interposer stands before.
//
// Loaded once, by its path, while this library is loaded: by name one would get this library
// itself, whose soname it shares. Everything this library does not answer itself goes there: the
// private symbols that provider libraries use, calls with the objects of real devices, and pure
// functions.
//
// Any thread, after the library's constructors.
#pragma once

namespace sumac::soft_nic::interpose {

// A symbol of the real library, with its version; null when there is no real library, or none of
// that name in it.
void* RealSymbol(const char* name, const char* version);

}  // namespace sumac::soft_nic::interpose
