#include "bindings/network.h"

#include "bindings/run.h"
#include "ops/activate.h"
#include "ops/conv3d.h"
#include "ops/fold_stats.h"
#include "ops/guidance.h"
#include "ops/linear.h"
#include "ops/pack.h"
#include "ops/unpack.h"

namespace fastbts {

using py::literals::operator""_a;
using MaybeArray = std::optional<Array>;

namespace {

void bind_conv3d(py::module_& module) {
  module.def(
      "conv3d_bricks",
      [](const Shape<3>& shape, int brick) {
        const Shape<3> n = conv3d_bricks(shape, brick);
        return n[0] * n[1] * n[2];
      },
      "shape"_a, "brick"_a);
  module.def(
      "conv3d",
      [](const Array& x, const Array& tiles, const MaybeArray& affine, const MaybeArray& bias,
         int stride, int spread, int brick, const Array& out, const MaybeArray& stats,
         int n_threads, StreamHandle stream) {
        run(conv3d, "conv3d", n_threads, stream, [&](Borrower& borrow) -> Conv3dArgs {
          return {borrow.floats<5>(x, "x", "(B, D, H, W, C)"),
                  borrow.optional<const float, 3>(affine, "affine", "float32 (B, 2, C)"),
                  borrow.floats<5>(tiles, "tiles", "(G, C/16, taps, 32, 16)"),
                  borrow.optional<const float, 1>(bias, "bias", "float32 (N)"),
                  stride,
                  spread,
                  brick,
                  borrow.floats<5, void>(out, "out", "(B, D, H, W, C)", Rows::kAny),
                  borrow.optional<float, 4>(stats, "stats", "float32 (B, N, T, 2)")};
        });
      },
      "x"_a, "tiles"_a, "affine"_a, "bias"_a, "stride"_a, "spread"_a, "brick"_a, "out"_a, "stats"_a,
      "n_threads"_a, "stream"_a);
}

void bind_features(py::module_& module) {
  module.def(
      "fold_stats",
      [](const Array& stats, std::int64_t n_voxels, const MaybeArray& weight,
         const MaybeArray& bias, const MaybeArray& film, const Array& affine,
         const MaybeArray& mean, int n_threads, StreamHandle stream) {
        run(fold_stats, "fold_stats", n_threads, stream, [&](Borrower& borrow) -> FoldStatsArgs {
          return {borrow.array<const float, 4>(stats, "stats", "float32 (B, C, T, 2)"),
                  n_voxels,
                  borrow.optional<const float, 1>(weight, "weight", "float32 (C)"),
                  borrow.optional<const float, 1>(bias, "bias", "float32 (C)"),
                  borrow.optional<const float, 3>(film, "film", "float32 (B, 2, C)"),
                  borrow.array<float, 3>(affine, "affine", "float32 (B, 2, C)"),
                  borrow.optional<float, 2>(mean, "mean", "float32 (B, C)")};
        });
      },
      "stats"_a, "n_voxels"_a, "weight"_a, "bias"_a, "film"_a, "affine"_a, "mean"_a, "n_threads"_a,
      "stream"_a);
  module.def(
      "activate",
      [](const Array& x, const MaybeArray& affine, const Array& out, int n_threads,
         StreamHandle stream) {
        run(activate, "activate", n_threads, stream, [&](Borrower& borrow) -> ActivateArgs {
          return {borrow.floats<5>(x, "x", "(B, D, H, W, C)", Rows::kAny),
                  borrow.optional<const float, 3>(affine, "affine", "float32 (B, 2, C)"),
                  borrow.floats<5, void>(out, "out", "(B, D, H, W, C)", Rows::kAny)};
        });
      },
      "x"_a, "affine"_a, "out"_a, "n_threads"_a, "stream"_a);
  module.def(
      "pack",
      [](const Array& volume, int patch, const MaybeArray& gate, const MaybeArray& gate_bias,
         const MaybeArray& background, float step, const Array& out, const MaybeArray& scratch,
         int n_threads, StreamHandle stream) {
        run(pack, "pack", n_threads, stream, [&](Borrower& borrow) -> PackArgs {
          return {
              borrow.floats<5>(volume, "volume", "(B, M, D, H, W)"),
              patch,
              borrow.optional<const float, 2>(gate, "gate", "float32 (M, M)"),
              borrow.optional<const float, 1>(gate_bias, "gate_bias", "float32 (M)"),
              borrow.optional<const float, 1>(background, "background", "float32 (M)"),
              step,
              borrow.numbers<5, void>(out, "out", "(B, D, H, W, C), on the CPU also uint16, int8"),
              borrow.optional<float, 3>(scratch, "scratch", "float32 (2, B, M)")};
        });
      },
      "volume"_a, "patch"_a, "gate"_a, "gate_bias"_a, "background"_a, "step"_a, "out"_a,
      "scratch"_a, "n_threads"_a, "stream"_a);
  module.def(
      "unpack",
      [](const Array& x, int patch, const Array& out, int n_threads, StreamHandle stream) {
        run(unpack, "unpack", n_threads, stream, [&](Borrower& borrow) -> UnpackArgs {
          return {borrow.numbers<5>(x, "x", "(B, D, H, W, C) or uint16"), patch,
                  borrow.array<float, 5>(out, "out", "float32 (B, K, D, H, W)")};
        });
      },
      "x"_a, "patch"_a, "out"_a, "n_threads"_a, "stream"_a);
}

void bind_text(py::module_& module) {
  module.def(
      "linear",
      [](const Array& x, const Array& weight, const MaybeArray& bias, const MaybeArray& add,
         int activation, const Array& out, int n_threads, StreamHandle stream) {
        run(linear, "linear", n_threads, stream, [&](Borrower& borrow) -> LinearArgs {
          return {borrow.array<const float, 2>(x, "x", "float32 (N, I)"),
                  borrow.array<const float, 2>(weight, "weight", "float32 (J, I)"),
                  borrow.optional<const float, 1>(bias, "bias", "float32 (J)"),
                  borrow.optional<const float, 2>(add, "add", "float32 (N, J)"),
                  static_cast<Activation>(activation),
                  borrow.array<float, 2>(out, "out", "float32 (N, J)")};
        });
      },
      "x"_a, "weight"_a, "bias"_a, "add"_a, "activation"_a, "out"_a, "n_threads"_a, "stream"_a);
  module.def(
      "similarity",
      [](const Array& image, const Array& text, float scale, const Array& bias, const Array& out,
         int n_threads, StreamHandle stream) {
        run(similarity, "similarity", n_threads, stream, [&](Borrower& borrow) -> SimilarityArgs {
          return {borrow.floats<5>(image, "image", "(B, D, H, W, E)"),
                  borrow.array<const float, 2>(text, "text", "float32 (K, E)"), scale,
                  borrow.array<const float, 1>(bias, "bias", "float32 (K)"),
                  borrow.floats<5, void>(out, "out", "(B, K, D, H, W)", Rows::kAny)};
        });
      },
      "image"_a, "text"_a, "scale"_a, "bias"_a, "out"_a, "n_threads"_a, "stream"_a);
  module.def(
      "text_reads",
      [](const Array& query, const Array& key, const Array& value, const Array& out,
         const Array& scratch, int n_threads, StreamHandle stream) {
        run(text_reads, "text_reads", n_threads, stream, [&](Borrower& borrow) -> TextReadsArgs {
          return {borrow.array<const float, 3>(query, "query", "float32 (B, K, E)"),
                  borrow.floats<5>(key, "key", "(B, D, H, W, E)"),
                  borrow.floats<5>(value, "value", "(B, D, H, W, E)"),
                  borrow.array<float, 3>(out, "out", "float32 (B, K, E)"),
                  borrow.array<float, 3>(scratch, "scratch", "float32 (B, K, D H W)")};
        });
      },
      "query"_a, "key"_a, "value"_a, "out"_a, "scratch"_a, "n_threads"_a, "stream"_a);
  module.def(
      "image_reads",
      [](const Array& query, const Array& key, const Array& value, const Array& out, int n_threads,
         StreamHandle stream) {
        run(image_reads, "image_reads", n_threads, stream, [&](Borrower& borrow) -> ImageReadsArgs {
          return {borrow.floats<5>(query, "query", "(B, D, H, W, E)"),
                  borrow.array<const float, 3>(key, "key", "float32 (B, K, E)"),
                  borrow.array<const float, 3>(value, "value", "float32 (B, K, E)"),
                  borrow.floats<5, void>(out, "out", "(B, D, H, W, E)")};
        });
      },
      "query"_a, "key"_a, "value"_a, "out"_a, "n_threads"_a, "stream"_a);
}

}  // namespace

void bind_layers(py::module_& module) {
  bind_conv3d(module);
  bind_features(module);
  bind_text(module);
}

}  // namespace fastbts
