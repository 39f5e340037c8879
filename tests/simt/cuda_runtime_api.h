#pragma once

/// What launchers see of the CUDA runtime under the SIMT emulation, in place of NVIDIA's header:
/// memory is host memory, and every call is done, and went well, when it returns.
#include <cstdint>
#include <cstring>
#include <stdexcept>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr std::uint64_t volume() const { return std::uint64_t{x} * y * z; }
};

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
enum cudaError_t { cudaSuccess = 0, cudaErrorInsufficientDriver = 35, cudaErrorNoDevice = 100 };
enum cudaMemcpyKind { cudaMemcpyDeviceToDevice = 3 };

namespace simt {

inline cudaStream_t only_stream = nullptr;  // the one that all work must be queued on

inline void expect_stream(cudaStream_t stream) {
  if (stream != only_stream) throw std::logic_error("work on another stream than the one given");
}

}  // namespace simt

inline cudaError_t cudaGetLastError() { return cudaSuccess; }
inline const char* cudaGetErrorName(cudaError_t) { return "cudaSuccess"; }
inline const char* cudaGetErrorString(cudaError_t) { return "no error"; }
inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t n_bytes, cudaMemcpyKind,
                                   cudaStream_t stream) {
  simt::expect_stream(stream);
  std::memcpy(to, from, n_bytes);
  return cudaSuccess;
}
