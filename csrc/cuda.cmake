# The CUDA ops, in a library of their own, as nvcc does not know the host compiler's options.
include(CheckLanguage)

# Turing to Blackwell, and PTX for newer GPUs; CUDA 13 supports nothing older.
set(architectures 75-real 80-real 86-real 89-real 90-real 100-real 120)
set(wanted ${FASTBTS_CUDA})
if(wanted STREQUAL "AUTO")
  # Asks for a GPU, not for nvcc alone: code that cannot run here would only make the build slower.
  execute_process(
    COMMAND nvidia-smi --query-gpu=compute_cap --format=csv,noheader
    OUTPUT_VARIABLE capabilities
    RESULT_VARIABLE failed
    ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
  if(failed)
    set(wanted OFF)
  else()
    string(REGEX REPLACE "[.]" "" architectures "${capabilities}")
    string(REGEX REPLACE "[\r\n]+" ";" architectures "${architectures}")
    list(REMOVE_DUPLICATES architectures)
  endif()
endif()

if(wanted)
  # A reused build folder remembers an nvcc that was removed, or that there was none.
  if(NOT EXISTS "${CMAKE_CUDA_COMPILER}")
    unset(CMAKE_CUDA_COMPILER CACHE)
  endif()
  check_language(CUDA)
  if(FASTBTS_CUDA STREQUAL "ON" AND NOT CMAKE_CUDA_COMPILER)
    message(FATAL_ERROR "FASTBTS_CUDA=ON, but no CUDA compiler works here: install nvcc, set "
                        "CUDACXX, or take AUTO or OFF")
  endif()
endif()

if(NOT wanted OR NOT CMAKE_CUDA_COMPILER)
  message(STATUS "fastbts: CUDA ops: no")
  return()
endif()

if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
  set(CMAKE_CUDA_ARCHITECTURES ${architectures})
endif()
enable_language(CUDA)
message(STATUS "fastbts: CUDA ops: nvcc ${CMAKE_CUDA_COMPILER_VERSION}, "
               "for ${CMAKE_CUDA_ARCHITECTURES}")

file(GLOB cuda_sources CONFIGURE_DEPENDS csrc/core/cuda/*.cu csrc/ops/*.cu)
add_library(cuda_ops STATIC ${cuda_sources})
target_include_directories(cuda_ops PRIVATE csrc)
target_compile_features(cuda_ops PRIVATE cuda_std_17)
set_target_properties(cuda_ops PROPERTIES POSITION_INDEPENDENT_CODE ON CUDA_VISIBILITY_PRESET hidden
                                          CUDA_RUNTIME_LIBRARY Static)
# As on the CPU no fused multiply-adds: the same bits on every device.
target_compile_options(cuda_ops PRIVATE -fmad=false -lineinfo "SHELL:-Xcompiler -Wall,-Wextra"
                                        $<$<BOOL:${FASTBTS_WERROR}>:--Werror=all-warnings>)
set_target_properties(_C PROPERTIES CUDA_RUNTIME_LIBRARY Static)
target_compile_definitions(_C PRIVATE FASTBTS_HAS_CUDA)
target_compile_definitions(cuda_ops PRIVATE FASTBTS_HAS_CUDA)
target_link_libraries(_C PRIVATE cuda_ops)
