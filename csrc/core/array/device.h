#pragma once

namespace fastbts {

/// Where an array is: in host memory, or on one CUDA device.
struct Device {
  bool is_cuda = false;
  int index = 0;

  bool operator==(const Device& other) const {
    return is_cuda == other.is_cuda && index == other.index;
  }
};

/// A cudaStream_t, without CUDA's headers. Null is the default stream; the CPU ignores it.
struct Stream {
  void* handle = nullptr;
};

}  // namespace fastbts
