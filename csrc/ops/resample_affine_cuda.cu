#include <cmath>

#include "core/cuda/launch.h"
#include "ops/resample_affine.h"
#include "ops/resample_affine_kernel.cuh"

namespace fastbts {
namespace {

/// What the kernels take. The axes D and H of out may be exchanged: positions keep their bits.
struct AffineLaunch {
  AnyStrided<4> tensor;
  ResampleAffineSettings settings;
  AnyStrided<4, void> out;

  void exchange_axes() {
    for (auto& row : settings.map) std::swap(row[0], row[1]);
    std::swap(out.shape[1], out.shape[2]);
    std::swap(out.strides[1], out.strides[2]);
  }
};

AffineLaunch affine_launch(const ResampleAffineArgs& args) {
  AffineLaunch launch{strided(args.tensor), {{}, args.nearest, args.outside}, strided(args.out)};
  for (std::size_t axis = 0; axis < 3; ++axis)
    std::copy(args.map[axis].begin(), args.map[axis].end(), launch.settings.map[axis]);
  return launch;
}

/// The axis of out along which the tensor's memory is followed best.
int fast_axis(const ResampleAffineArgs& args) {
  const auto& steps = args.map[memory_order(args.tensor.shape, args.tensor.strides)[2]];
  int fast = 2;
  for (const int axis : {1, 0}) {
    const auto i = static_cast<std::size_t>(axis);
    if (std::abs(steps[i]) > std::abs(steps[static_cast<std::size_t>(fast)])) fast = axis;
  }
  return fast;
}

/// Whether 32 bits count all elements of a channel.
bool is_small(const AnyView<4>& tensor) {
  double extent = 0;
  for (std::size_t axis = 1; axis < 4; ++axis) {
    extent += static_cast<double>(tensor.shape[axis]) *
              std::abs(static_cast<double>(tensor.strides[axis]));
  }
  return extent < static_cast<double>(std::numeric_limits<std::int32_t>::max());
}

template <typename Bits, typename Offset>
void launch_affine(AffineLaunch args, int fast, cudaStream_t stream) {
  if (fast == 2) {
    const std::int64_t n_rows = args.out.shape[1] * args.out.shape[2];
    const WarpRowLaunch launch(n_rows, kMostRowBlocks);
    resample_affine_kernel<Bits, Offset><<<launch.blocks, launch.threads, 0, stream>>>(
        args.tensor, args.settings, args.out, static_cast<std::uint32_t>(n_rows));
    CUDA_CHECK_LAUNCH("resample_affine_kernel");
    return;
  }
  if (fast == 0) args.exchange_axes();
  const Tiles tiles = tiles_of(args.out.shape);
  const TileLaunch launch(tiles.n_all());
  resample_affine_tiles_kernel<Bits, Offset><<<launch.blocks, launch.threads, 0, stream>>>(
      args.tensor, args.settings, args.out, tiles, static_cast<std::uint32_t>(tiles.n_all()));
  CUDA_CHECK_LAUNCH("resample_affine_tiles_kernel");
}

}  // namespace

void resample_affine_cuda(const ResampleAffineArgs& args, Stream stream) {
  const auto [n_c, n_d, n_h, n_w] = args.out.shape;
  if (n_c * n_d * n_h * n_w == 0) return;
  dispatch_widths(args.tensor.dtype, [&](auto tag) {
    using Bits = typename decltype(tag)::type;
    const auto launch = is_small(args.tensor) ? launch_affine<Bits, std::int32_t>
                                              : launch_affine<Bits, std::int64_t>;
    launch(affine_launch(args), fast_axis(args), cuda_stream(stream));
  });
}

}  // namespace fastbts
