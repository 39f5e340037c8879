#include "core/cuda/check.h"
#include "core/cuda/device.h"

namespace fastbts {

int n_cuda_devices() {
  int n = 0;
  CUDA_CHECK(cudaGetDeviceCount(&n));
  return n;
}

Device cuda_device_of(const void* memory) {
  cudaPointerAttributes attributes{};
  CUDA_CHECK(cudaPointerGetAttributes(&attributes, memory));
  const bool on_device =
      attributes.type == cudaMemoryTypeDevice || attributes.type == cudaMemoryTypeManaged;
  require<DeviceError>(
      on_device, "expected memory of a CUDA device, got an address that is not device memory");
  return {true, attributes.device};
}

Device current_cuda_device() {
  int index = 0;
  CUDA_CHECK(cudaGetDevice(&index));
  return {true, index};
}

void cuda_wait(Stream stream, Stream for_stream) {
  if (stream.handle == for_stream.handle) return;
  cudaEvent_t done = nullptr;
  CUDA_CHECK(cudaEventCreateWithFlags(&done, cudaEventDisableTiming));
  const cudaError_t recorded = cudaEventRecord(done, cuda_stream(for_stream));
  const cudaError_t waits = recorded ? recorded : cudaStreamWaitEvent(cuda_stream(stream), done);
  cudaEventDestroy(done);  // is kept until the event has happened
  cuda_check(waits, "waiting for the stream of an array");
}

void cuda_synchronize(Stream stream) {
  n_cuda_devices();
  CUDA_CHECK(cudaStreamSynchronize(cuda_stream(stream)));
}

DeviceScope::DeviceScope(const Device& device) {
  const int n = n_cuda_devices();
  require<DeviceError>(device.index < n, "cuda:", device.index, ": expected a device below ", n);
  CUDA_CHECK(cudaGetDevice(&previous_));
  CUDA_CHECK(cudaSetDevice(device.index));
}

DeviceScope::~DeviceScope() { cudaSetDevice(previous_); }

}  // namespace fastbts
