#include "tensorrt/node.h"

#include <cctype>
#include <cstring>
#include <map>

#include "ops/widen.h"

namespace fastbts {

static_assert(kMostWeights == kWidenParts);

namespace {

std::int64_t n_elements(const nvinfer1::Dims& dims) {
  std::int64_t n = 1;
  for (int i = 0; i < dims.nbDims; ++i) n *= dims.d[i];
  return n;
}

std::int64_t size_of_axis(char axis, const std::map<char, std::int64_t>& sizes) {
  if (std::isdigit(axis)) return axis - '0';
  return std::islower(axis) ? 2 * sizes.at(static_cast<char>(std::toupper(axis))) : sizes.at(axis);
}

}  // namespace

DType Tensor::dtype() const {
  using nvinfer1::DataType;
  require<InputError>(
      type == DataType::kFLOAT || type == DataType::kHALF || type == DataType::kBF16,
      "expected float32, float16 or bfloat16, got TensorRT's type ", static_cast<int>(type));
  return type == DataType::kFLOAT  ? DType::kFloat32
         : type == DataType::kHALF ? DType::kFloat16
                                   : DType::kBfloat16;
}

void require_shapes(const Node& node, const Tensors& inputs) {
  std::map<char, std::int64_t> sizes;
  const auto each_axis = [&](auto&& fn) {
    for (std::size_t i = 0; i < node.n_inputs; ++i)
      for (std::size_t axis = 0; axis < std::strlen(node.shapes[i]); ++axis)
        fn(i, node.shapes[i][axis], inputs[i].dims.d[axis]);
  };
  each_axis([&](std::size_t, char letter, std::int64_t size) {
    if (std::isupper(letter)) sizes.try_emplace(letter, size);
  });
  each_axis([&](std::size_t i, char letter, std::int64_t size) {
    const std::int64_t expected = size_of_axis(letter, sizes);
    require<InputError>(size == expected && size > 0, "input ", i, " of shape ", node.shapes[i],
                        ": expected ", letter, " = ", expected, ", got ", size);
  });
}

std::array<const float*, kMostWeights> float_weights(const Tensors& inputs, std::size_t first,
                                                     std::size_t n, Workspace& workspace,
                                                     Stream stream) {
  const DType dtype = inputs[first].dtype();
  std::array<const float*, kMostWeights> weights{};
  WidenArgs args{{}, dtype};
  for (std::size_t i = first; i < n; ++i) {
    const std::size_t k = i - first;
    weights[k] = static_cast<const float*>(inputs[i].data);
    if (dtype == DType::kFloat32) continue;
    const std::int64_t size = n_elements(inputs[i].dims);
    args.parts[k] = {inputs[i].data, workspace.take<float>(size * size_of(DType::kFloat32)), size};
    weights[k] = args.parts[k].target;
  }
  if (!workspace.only_counts()) widen_cuda(args, stream);
  return weights;
}

}  // namespace fastbts
