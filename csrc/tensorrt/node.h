#pragma once

#include <NvInferRuntime.h>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>

#include "core/array/dense.h"

/// Parts of the TensorRT plugins for the ONNX domain `fastbts` (training/onnx_nodes.py).
namespace fastbts {

/// Parts of TensorRT's workspace, one after another; without memory it only counts their bytes.
class Workspace {
 public:
  Workspace() = default;
  explicit Workspace(void* memory) : only_counts_(false), memory_(static_cast<char*>(memory)) {}

  bool only_counts() const { return only_counts_; }
  std::size_t n_bytes() const { return n_bytes_; }

  template <typename T = void>
  T* take(std::int64_t n_bytes) {
    constexpr std::size_t kAlign = 256;  // as cudaMalloc aligns
    char* const part = only_counts_ ? nullptr : memory_ + n_bytes_;
    n_bytes_ += (static_cast<std::size_t>(n_bytes) + kAlign - 1) / kAlign * kAlign;
    return static_cast<T*>(static_cast<void*>(part));
  }

 private:
  bool only_counts_ = true;
  char* memory_ = nullptr;
  std::size_t n_bytes_ = 0;
};

/// The channels-last format of tensors (B, C, D, H, W) of a type. TensorRT has two that its plugins
/// may take (NvInferRuntime.h, TensorFormat): kDHWC8, of float16 and bfloat16 only, where voxels
/// have C rounded up to 8 channels; and kDHWC, of float32 only, without padding. The third format
/// for 3-D, kCDHW32, is of float16 and int8 and vector-major; we do not take it.
constexpr nvinfer1::TensorFormat channels_last_format(nvinfer1::DataType type) {
  return type == nvinfer1::DataType::kFLOAT ? nvinfer1::TensorFormat::kDHWC
                                            : nvinfer1::TensorFormat::kDHWC8;
}

/// An input of a node; data is null while only the workspace is counted.
struct Tensor {
  const void* data = nullptr;
  nvinfer1::DataType type{};
  nvinfer1::Dims dims{};
  nvinfer1::TensorFormat format = nvinfer1::TensorFormat::kLINEAR;

  /// Channels of a voxel in memory: in kDHWC8 more than C, and those beyond may be anything.
  std::int64_t n_channels() const {
    return format == nvinfer1::TensorFormat::kDHWC8 ? (dims.d[1] + 7) / 8 * 8 : dims.d[1];
  }

  /// Throws InputError for types that the ops do not have.
  DType dtype() const;

  template <std::size_t N>
  Shape<N> shape() const {
    Shape<N> shape{};
    std::copy_n(dims.d, N, shape.begin());
    return shape;
  }

  template <std::size_t N>
  AnyView<N> view() const {
    return {data, dtype(), shape<N>(), dense_strides(shape<N>()), {true, 0}};
  }

  /// A tensor (B, C, D, H, W) in its format.
  AnyView<5> volume() const {
    AnyView<5> dense = view<5>();
    if (format == nvinfer1::TensorFormat::kLINEAR) return dense;
    const std::int64_t step = n_channels(), row = dense.shape[4] * step,
                       slice = dense.shape[3] * row;
    dense.strides = {dense.shape[2] * slice, 1, slice, row, step};
    return dense;
  }
};

inline constexpr std::size_t kMostInputs = 10, kMostWeights = 6;
using Tensors = std::array<Tensor, kMostInputs>;

/// A node: what TensorRT needs to know of it, and its maths.
struct Node {
  const char* name;
  std::size_t n_inputs;

  /// The first of them, and the output, all have kLINEAR or all the channels-last format; the
  /// others are kLINEAR.
  std::size_t n_features;

  /// The shape of each input, one letter per axis: equal letters are equal sizes, a small letter is
  /// twice its capital, a digit is itself. The output has shape and type of the first.
  std::array<const char*, kMostInputs> shapes;

  /// Queues the maths on the stream; if the workspace only counts, takes its parts and queues
  /// nothing. Throws.
  void (*run)(const Tensors& inputs, void* y, Workspace& workspace, Stream stream);
};

extern const Node kSemanticBridge, kSemanticAttention;

/// Throws InputError unless the shapes are those of the node and not empty; ranks are not checked.
void require_shapes(const Node& node, const Tensors& inputs);

/// Inputs [first, n) as float32: themselves, or widened on the stream into the workspace.
std::array<const float*, kMostWeights> float_weights(const Tensors& inputs, std::size_t first,
                                                     std::size_t n, Workspace& workspace,
                                                     Stream stream);

/// A dense view of weights (...) in float32 on the device.
template <std::size_t N>
View<const float, N> weights_view(const float* data, const Tensor& of) {
  return {data, of.shape<N>(), dense_strides(of.shape<N>()), {true, 0}};
}

}  // namespace fastbts
