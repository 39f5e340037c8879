#pragma once

#include "core/array/device.h"
#include "core/array/error.h"

namespace fastbts {

#ifdef FASTBTS_HAS_CUDA  // nothing else reads this macro
inline constexpr bool kHasCuda = true;

/// Number of CUDA devices, at least one; throws DeviceError that says why there is none.
int n_cuda_devices();

/// The device whose memory this is; throws DeviceError for host memory.
Device cuda_device_of(const void* memory);

/// The current device of this thread.
Device current_cuda_device();

/// Makes later work on a stream wait for all earlier work on another one.
void cuda_wait(Stream stream, Stream for_stream);

/// Waits until all work on a stream is done; throws DeviceError if some of it failed.
void cuda_synchronize(Stream stream);
#else
inline constexpr bool kHasCuda = false;

[[noreturn]] inline int n_cuda_devices() {
  throw DeviceError(
      "no CUDA device: fastbts was built without CUDA; build it where nvcc is, or use the CPU");
}
[[noreturn]] inline Device cuda_device_of(const void*) { n_cuda_devices(); }
[[noreturn]] inline Device current_cuda_device() { n_cuda_devices(); }
[[noreturn]] inline void cuda_wait(Stream, Stream) { n_cuda_devices(); }
[[noreturn]] inline void cuda_synchronize(Stream) { n_cuda_devices(); }
#endif

/// Makes a device the current one of this thread for a scope; throws DeviceError where it cannot.
class DeviceScope {
 public:
  explicit DeviceScope(const Device& device);
  ~DeviceScope();
  DeviceScope(const DeviceScope&) = delete;
  DeviceScope& operator=(const DeviceScope&) = delete;

 private:
  int previous_ = 0;
};

/// Runs an op where its arrays are: cpu() or cuda(device). The latter must be generic, [&](auto),
/// so that a build without CUDA does not need its code.
template <typename Cpu, typename Cuda>
void on_device(const Device& device, Cpu&& cpu, [[maybe_unused]] Cuda&& cuda) {
  if (!device.is_cuda) return cpu();
  if constexpr (kHasCuda) {
    const DeviceScope scope(device);
    cuda(device);
  } else {
    n_cuda_devices();
  }
}

}  // namespace fastbts
