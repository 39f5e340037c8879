#include "core/cuda_check.h"
#include "core/cuda_device.h"

namespace fastbts {

int n_cuda_devices() {
  int n = 0;
  CUDA_CHECK(cudaGetDeviceCount(&n));
  return n;
}

DeviceScope::DeviceScope(const Device& device) {
  const int n = n_cuda_devices();
  require<DeviceError>(device.index < n, "cuda:", device.index, ": expected a device below ", n);
  CUDA_CHECK(cudaGetDevice(&previous_));
  CUDA_CHECK(cudaSetDevice(device.index));
}

DeviceScope::~DeviceScope() { cudaSetDevice(previous_); }

}  // namespace fastbts
