#include "bindings/network.h"

#include "bindings/run.h"
#include "ops/conv3d.h"

namespace fastbts {

using py::literals::operator""_a;
using MaybeArray = std::optional<Array>;

void bind_layers(py::module_& module) {
  module.def(
      "conv3d_bricks",
      [](const Shape<3>& shape, int stride) {
        const Shape<3> n = conv3d_bricks(shape, stride);
        return n[0] * n[1] * n[2];
      },
      "shape"_a, "stride"_a);
  module.def(
      "conv3d",
      [](const Array& x, const Array& tiles, const MaybeArray& affine, const MaybeArray& bias,
         int stride, int spread, const Array& out, const MaybeArray& stats, int n_threads,
         StreamHandle stream) {
        run(conv3d, "conv3d", n_threads, stream, [&](Borrower& borrow) -> Conv3dArgs {
          return {borrow.floats<5>(x, "x", "(B, D, H, W, C)"),
                  borrow.optional<const float, 3>(affine, "affine", "float32 (B, 2, C)"),
                  borrow.floats<5>(tiles, "tiles", "(G, C/16, taps, 32, 16)"),
                  borrow.optional<const float, 1>(bias, "bias", "float32 (N)"),
                  stride,
                  spread,
                  borrow.floats<5, void>(out, "out", "(B, D, H, W, C)", Rows::kAny),
                  borrow.optional<float, 4>(stats, "stats", "float32 (B, N, T, 2)")};
        });
      },
      "x"_a, "tiles"_a, "affine"_a, "bias"_a, "stride"_a, "spread"_a, "out"_a, "stats"_a,
      "n_threads"_a, "stream"_a);
}

}  // namespace fastbts
