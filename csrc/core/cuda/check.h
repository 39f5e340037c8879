#pragma once

#include <cuda_runtime_api.h>

#include "core/array/device.h"
#include "core/array/error.h"

namespace fastbts {

/// Throws DeviceError unless the call succeeded. Clears the error, which later calls would report
/// as theirs.
inline void cuda_check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();
  const bool absent = status == cudaErrorInsufficientDriver ||
                      status == cudaErrorNoDevice;  // 35 no driver, 100 no GPU
  require<DeviceError>(!absent, "no CUDA device: ", cudaGetErrorString(status),
                       "; install a driver or use the CPU");
  require<DeviceError>(false, what, ": ", cudaGetErrorName(status), ": ",
                       cudaGetErrorString(status));
}

inline cudaStream_t cuda_stream(Stream stream) { return static_cast<cudaStream_t>(stream.handle); }

}  // namespace fastbts

/// For every call of the CUDA runtime.
#define CUDA_CHECK(call) ::fastbts::cuda_check((call), #call)

/// After every launch: the only place where an invalid launch is reported.
#define CUDA_CHECK_LAUNCH(kernel) ::fastbts::cuda_check(cudaGetLastError(), kernel)
