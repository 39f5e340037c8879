#include "core/cuda/launch.h"
#include "ops/conv3d.h"
#include "ops/conv3d_kernel.cuh"

namespace fastbts {
namespace {

bool is_multiple(const void* address, std::size_t n) {
  return reinterpret_cast<std::uintptr_t>(address) % n == 0;
}

/// Whether all strides but that of channels are multiples.
bool has_multiples(const Shape<5>& strides, std::int64_t factor) {
  return std::all_of(strides.begin(), strides.end() - 1,
                     [&](std::int64_t step) { return step % factor == 0; });
}

/// Throws unless offsets within a case fit in 32 bits.
template <typename AView>
void require_small(const AView& view, const char* name) {
  std::int64_t n = 0;
  for (std::size_t axis = 1; axis < 5; ++axis)
    n += (view.shape[axis] - 1) * std::abs(view.strides[axis]);
  require<InputError>(n <= std::numeric_limits<std::int32_t>::max(), name,
                      ": expected fewer than 2^31 elements from the first to the last of a case");
}

ConvSizes sizes_of(const Conv3dArgs& args) {
  const auto n = [](std::int64_t size) { return static_cast<int>(size); };
  const Shape<3> size = conv3d_size(args), bricks = conv3d_bricks(size, args.brick);
  ConvSizes s{};
  s.n_in = n(args.x.shape[4]);
  s.spread = args.spread;
  s.n_c = n(args.out.shape[4]);
  s.n_out = s.n_c * s.spread * s.spread * s.spread;
  for (std::size_t axis = 0; axis < 3; ++axis) {
    s.in[axis] = n(args.x.shape[axis + 1]);
    s.size[axis] = n(size[axis]);
    s.bricks[axis] = n(bricks[axis]);
  }
  s.x_case = args.x.strides[0];
  s.out_case = args.out.strides[0];
  for (std::size_t axis = 0; axis < 3; ++axis) s.x[axis] = n(args.x.strides[axis + 1]);
  for (std::size_t axis = 0; axis < 4; ++axis) s.out[axis] = n(args.out.strides[axis + 1]);
  s.vectors = is_multiple(args.x.data, 16) && has_multiples(args.x.strides, 8) && s.n_in % 8 == 0;
  s.pairs = s.out[3] == 1 && s.n_c % 2 == 0 && has_multiples(args.out.strides, 2) &&
            is_multiple(args.out.data, static_cast<std::size_t>(2 * size_of(args.out.dtype)));
  return s;
}

template <int kStride, int kKernel, bool kSmall, typename Out>
void launch_conv(const Conv3dArgs& args, cudaStream_t stream) {
  using Shape = ConvShape<kStride, kKernel, kSmall>;
  const ConvSizes s = sizes_of(args);
  const ConvPointers<Out> pointers{static_cast<const Half*>(args.x.data),     args.affine.data,
                                   static_cast<const Half*>(args.tiles.data), args.bias.data,
                                   static_cast<Out*>(args.out.data),          args.stats.data};
  const dim3 blocks(static_cast<unsigned>(s.bricks[0] * s.bricks[1] * s.bricks[2]),
                    static_cast<unsigned>(args.tiles.shape[0]),
                    static_cast<unsigned>(args.x.shape[0]));
  const std::size_t shared_bytes = sizeof(Half) * Shape::kSharedHalves;
  conv3d_kernel<kStride, kKernel, kSmall>
      <<<blocks, Shape::kThreads, shared_bytes, stream>>>(pointers, s);
  CUDA_CHECK_LAUNCH("conv3d_kernel");
}

template <int kKernel, typename Out>
void launch_stride_1(const Conv3dArgs& args, cudaStream_t stream) {
  if (args.brick == 64) return launch_conv<1, kKernel, true, Out>(args, stream);
  launch_conv<1, kKernel, false, Out>(args, stream);
}

template <typename Out>
void launch(const Conv3dArgs& args, cudaStream_t stream) {
  if (args.stride == 2) return launch_conv<2, 3, true, Out>(args, stream);
  if (args.tiles.shape[2] == 1) return launch_stride_1<1, Out>(args, stream);
  launch_stride_1<3, Out>(args, stream);
}

}  // namespace

void conv3d_cuda(const Conv3dArgs& args, Stream stream) {
  require_small(args.x, "conv3d: x");
  require_small(args.out, "conv3d: out");
  if (args.out.dtype == DType::kFloat16) return launch<Half>(args, cuda_stream(stream));
  launch<float>(args, cuda_stream(stream));
}

}  // namespace fastbts
