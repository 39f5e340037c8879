#pragma once

/// What launchers and csrc/core/cuda see of the CUDA runtime under the SIMT emulation, in place of
/// NVIDIA's header: one device, whose memory is host memory. Every call is done when it returns.
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
  constexpr std::uint64_t volume() const { return std::uint64_t{x} * y * z; }
};

using cudaStream_t = struct CUstream_st*;
using cudaEvent_t = struct CUevent_st*;
enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100
};
enum cudaMemcpyKind { cudaMemcpyDeviceToDevice = 3 };
enum cudaMemoryType { cudaMemoryTypeHost = 1, cudaMemoryTypeDevice = 2, cudaMemoryTypeManaged = 3 };
enum { cudaEventDisableTiming = 2 };
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};

namespace simt {

inline cudaStream_t only_stream = nullptr;  // the one that all work must be queued on
inline cudaError_t last_error = cudaSuccess;
inline std::string last_message = "no error";

inline void expect_stream(cudaStream_t stream) {
  if (stream != only_stream) throw std::logic_error("work on another stream than the one given");
}

}  // namespace simt

inline cudaError_t cudaGetLastError() {
  const cudaError_t error = simt::last_error;
  simt::last_error = cudaSuccess;
  return error;
}
inline const char* cudaGetErrorName(cudaError_t error) {
  return error == cudaSuccess ? "cudaSuccess" : "cudaErrorInvalidConfiguration";
}
inline const char* cudaGetErrorString(cudaError_t) { return simt::last_message.c_str(); }

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t n_bytes, cudaMemcpyKind,
                                   cudaStream_t stream) {
  simt::expect_stream(stream);
  std::memcpy(to, from, n_bytes);
  return cudaSuccess;
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t n_bytes, cudaStream_t stream) {
  simt::expect_stream(stream);
  std::memset(to, value, n_bytes);
  return cudaSuccess;
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  simt::expect_stream(stream);
  return cudaSuccess;
}

inline cudaError_t cudaGetDeviceCount(int* n) { return *n = 1, cudaSuccess; }
inline cudaError_t cudaGetDevice(int* device) { return *device = 0, cudaSuccess; }
inline cudaError_t cudaSetDevice(int) { return cudaSuccess; }
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void*) {
  return *attributes = {cudaMemoryTypeDevice, 0}, cudaSuccess;
}

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t*, int) { return cudaSuccess; }
inline cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
inline cudaError_t cudaStreamWaitEvent(cudaStream_t, cudaEvent_t) { return cudaSuccess; }
inline cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
