#pragma once

namespace fastbts {

/// Where an array lies: in host memory, or on one CUDA device.
struct Device {
  bool is_cuda = false;
  int index = 0;

  bool operator==(const Device& other) const {
    return is_cuda == other.is_cuda && index == other.index;
  }
};

/// Queue of a CUDA device: a cudaStream_t that need not be spelled out where there is no CUDA. Null
/// is the default stream; the CPU ignores it.
struct Stream {
  void* handle = nullptr;
};

}  // namespace fastbts
