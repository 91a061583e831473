// What a library was made from: build.py gives the digest of lipstream_kernels.h.

#include "lipstream_kernels.h"

LS_EXPORT uint64_t ls_interface() { return LS_INTERFACE; }
