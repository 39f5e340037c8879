#pragma once

/// What launchers and csrc/core/cuda see of the CUDA runtime under the SIMT emulation, in place of
/// NVIDIA's header. By itself it is one device, whose memory is host memory and whose work is done
/// when a call returns. Tests may connect a machine that answers in its place, and that queues
/// kernels for its streams: tests/fakes.
#include <cstdint>
#include <cstring>
#include <functional>
#include <mutex>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

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

using Work = std::function<void()>;

/// Answers a call of the runtime by its name, in its arguments' order; values go to `out`.
using Machine = int (*)(const char* name, const std::int64_t* arguments, std::int64_t* out);

inline Machine machine = nullptr;
inline std::mutex kernels_lock;
inline std::vector<Work> kernels;  // launched on the machine, which runs them by their numbers
inline cudaStream_t only_stream = nullptr;  // without a machine: what all work must be queued on
inline thread_local cudaError_t last_error = cudaSuccess;
inline thread_local std::string last_message = "no error";

inline void expect_stream(cudaStream_t stream) {
  if (stream != only_stream) throw std::logic_error("work on another stream than the one given");
}

template <typename T>
std::int64_t number(T value) {
  if constexpr (std::is_pointer_v<T>)
    return static_cast<std::int64_t>(reinterpret_cast<std::intptr_t>(value));
  else
    return static_cast<std::int64_t>(value);
}

template <typename... Args>
cudaError_t ask(const char* name, std::int64_t* out, Args... args) {
  const std::int64_t arguments[] = {number(args)..., 0};
  return static_cast<cudaError_t>(machine(name, arguments, out));
}

/// Has the machine answer, or does it here, in the order of the one stream.
template <typename... Args>
cudaError_t on_stream(cudaStream_t stream, const Work& work, const char* name, Args... args) {
  if (machine) return ask(name, nullptr, args...);
  expect_stream(stream);
  work();
  return cudaSuccess;
}

/// A kernel; a launch that the machine refuses shows in cudaGetLastError.
inline void launch_on(cudaStream_t stream, const char* name, Work kernel) {
  if (!machine) return expect_stream(stream), kernel();
  std::size_t n_before;
  {
    const std::lock_guard<std::mutex> hold(kernels_lock);
    n_before = kernels.size();
    kernels.push_back(std::move(kernel));
  }
  last_error = ask(name, nullptr, n_before, stream);
  last_message = "a launch that the machine refused";
}

}  // namespace simt

inline cudaError_t cudaGetLastError() { return std::exchange(simt::last_error, cudaSuccess); }
inline const char* cudaGetErrorName(cudaError_t error) {
  static thread_local std::string name;
  if (error == cudaErrorInvalidConfiguration) return "cudaErrorInvalidConfiguration";
  return (name = "cudaError " + std::to_string(error)).c_str();
}
inline const char* cudaGetErrorString(cudaError_t) { return simt::last_message.c_str(); }

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t n_bytes,
                                   cudaMemcpyKind kind, cudaStream_t stream) {
  return simt::on_stream(
      stream, [=] { std::memcpy(to, from, n_bytes); }, __func__, to, from, n_bytes, kind, stream);
}
inline cudaError_t cudaMemsetAsync(void* to, int value, std::size_t n_bytes, cudaStream_t stream) {
  return simt::on_stream(
      stream, [=] { std::memset(to, value, n_bytes); }, __func__, to, value, n_bytes, stream);
}
inline cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return simt::on_stream(stream, [] {}, __func__, stream);
}

inline cudaError_t cudaGetDeviceCount(int* n) {
  std::int64_t value = 1;
  const cudaError_t error = simt::machine ? simt::ask(__func__, &value) : cudaSuccess;
  return *n = static_cast<int>(value), error;
}
inline cudaError_t cudaGetDevice(int* device) {
  std::int64_t value = 0;
  const cudaError_t error = simt::machine ? simt::ask(__func__, &value) : cudaSuccess;
  return *device = static_cast<int>(value), error;
}
inline cudaError_t cudaSetDevice(int device) {
  return simt::machine ? simt::ask(__func__, nullptr, device) : cudaSuccess;
}
inline cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* memory) {
  std::int64_t values[2] = {cudaMemoryTypeDevice, 0};
  const cudaError_t error = simt::machine ? simt::ask(__func__, values, memory) : cudaSuccess;
  *attributes = {static_cast<cudaMemoryType>(values[0]), static_cast<int>(values[1])};
  return error;
}

inline cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, int flags) {
  std::int64_t value = 0;
  const cudaError_t error = simt::machine ? simt::ask(__func__, &value, flags) : cudaSuccess;
  return *event = reinterpret_cast<cudaEvent_t>(value), error;
}
inline cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return simt::machine ? simt::ask(__func__, nullptr, event, stream) : cudaSuccess;
}
inline cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned flags = 0) {
  return simt::machine ? simt::ask(__func__, nullptr, stream, event, flags) : cudaSuccess;
}
inline cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return simt::machine ? simt::ask(__func__, nullptr, event) : cudaSuccess;
}
