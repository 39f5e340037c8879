#pragma once

#include <cstddef>  // says whether this is glibc

/// Compiles a function for several instruction sets; the loader takes the best that the machine has. For functions that
/// compute more than they load. Vectors of any length give the same bits, as products and sums stay separate
/// (-ffp-contract=off). No AVX-512: GCC 12 made code of a fifteenth of the speed with it.
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__GNUC__) && !defined(__SANITIZE_ADDRESS__)
#define FASTBTS_CLONES __attribute__((target_clones("avx2", "default")))
#else
#define FASTBTS_CLONES
#endif
