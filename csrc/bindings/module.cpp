#include <pybind11/stl.h>
#include <pybind11/typing.h>

#include <array>
#include <cstdint>

#include "bindings/export.h"
#include "bindings/network.h"
#include "bindings/run.h"
#include "core/cpu/parallel.h"
#include "core/cpu/wide.h"
#include "core/cuda/device.h"
#include "ops/blend.h"
#include "ops/brain_box.h"
#include "ops/components.h"
#include "ops/expected_dice.h"
#include "ops/label.h"
#include "ops/mutual_information.h"
#include "ops/normalize.h"
#include "ops/resample.h"
#include "ops/resample_affine.h"
#include "ops/semantic_attention.h"
#include "ops/semantic_bridge.h"
#include "ops/stray_core.h"
#include "ops/window.h"

namespace fastbts {
namespace {

using py::literals::operator""_a;
using Bounds3 = std::array<std::array<std::int64_t, 2>, 3>;

Box to_box(const Bounds3& bounds) {
  Box box;
  for (std::size_t i = 0; i < 3; ++i) box[i] = {bounds[i][0], bounds[i][1]};
  return box;
}

void bind_preparation(py::module_& module) {
  module.def(
      "brain_box",
      [](const Array& volume, const Array& found, int n_threads, StreamHandle stream) {
        run(brain_box, "brain_box", n_threads, stream, [&](Borrower& borrow) -> BrainBoxArgs {
          return {borrow.any<4>(volume, "volume", "a real image (M, D, H, W)"),
                  borrow.array<std::int64_t, 1>(found, "found", "int64 (7 + 2M)")};
        });
      },
      "volume"_a, "found"_a, "n_threads"_a, "stream"_a);

  module.def("normalize_scratch", normalize_scratch, "n_modalities"_a, "n_voxels"_a);
  module.def(
      "normalize",
      [](const Array& volume, const Bounds3& box, const std::array<double, 2>& percentiles,
         int patch, const std::optional<Array>& gate, const std::optional<Array>& gate_bias,
         const std::optional<Array>& background, float step, const Array& tensor,
         const Array& stats, const std::optional<Array>& scratch, int n_threads,
         StreamHandle stream) {
        run(normalize, "normalize", n_threads, stream, [&](Borrower& borrow) -> NormalizeArgs {
          return {borrow.any<4>(volume, "volume", "a real image (M, D, H, W)"),
                  to_box(box),
                  percentiles,
                  patch,
                  borrow.optional<const float, 2>(gate, "gate", "float32 (M, M)"),
                  borrow.optional<const float, 1>(gate_bias, "gate_bias", "float32 (M)"),
                  borrow.optional<const float, 1>(background, "background", "float32 (M)"),
                  step,
                  borrow.numbers<4, void>(tensor, "tensor", "(M, D, H, W)", Rows::kDense),
                  borrow.array<double, 2>(stats, "stats", "float64 (M, 4)"),
                  borrow.optional<std::uint8_t, 1>(scratch, "scratch", "uint8 (n)")};
        });
      },
      "volume"_a, "box"_a, "percentiles"_a, "patch"_a, "gate"_a, "gate_bias"_a, "background"_a,
      "step"_a, "tensor"_a, "stats"_a, "scratch"_a, "n_threads"_a, "stream"_a);

  module.def(
      "resample",
      [](const Array& tensor, const Array& out, int n_threads, StreamHandle stream) {
        run(resample, "resample", n_threads, stream, [&](Borrower& borrow) -> ResampleArgs {
          return {borrow.floats<4>(tensor, "tensor", "(C, D, H, W)"),
                  borrow.floats<4, void>(out, "out", "(C, D', H', W')")};
        });
      },
      "tensor"_a, "out"_a, "n_threads"_a, "stream"_a);

  module.def(
      "resample_affine",
      [](const Array& tensor, const AffineMap& matrix, bool nearest, float outside,
         const Array& out, int n_threads, StreamHandle stream) {
        const auto borrow_args = [&](Borrower& borrow) -> ResampleAffineArgs {
          return {borrow.any<4>(tensor, "tensor", "a real tensor (C, D, H, W)"), matrix, nearest,
                  outside, borrow.any<4, void>(out, "out", "float32 or uint8 (C, D', H', W')")};
        };
        run(resample_affine, "resample_affine", n_threads, stream, borrow_args);
      },
      "tensor"_a, "matrix"_a, "nearest"_a, "outside"_a, "out"_a, "n_threads"_a, "stream"_a);
}

void bind_windows(py::module_& module) {
  module.def(
      "window",
      [](const Array& tensor, const Array& origins, const Array& out, int n_threads,
         StreamHandle stream) {
        run(window, "window", n_threads, stream, [&](Borrower& borrow) -> WindowArgs {
          return {
              borrow.floats<4>(tensor, "tensor", "(M, D, H, W)"),
              borrow.array<const std::int32_t, 2>(origins, "origins", "int32 (B, 3)", Rows::kAny),
              borrow.floats<5, void>(out, "out", "(B, M, d, h, w)", Rows::kAny)};
        });
      },
      "tensor"_a, "origins"_a, "out"_a, "n_threads"_a, "stream"_a);

  module.def(
      "blend",
      [](const Array& logits, const Array& origins, const std::array<Array, 3>& weights,
         const Array& total, int n_threads, StreamHandle stream) {
        run(blend, "blend", n_threads, stream, [&](Borrower& borrow) -> BlendArgs {
          return {
              borrow.floats<5>(logits, "logits", "(B, K, d, h, w)"),
              borrow.array<const std::int32_t, 2>(origins, "origins", "int32 (B, 3)", Rows::kAny),
              {borrow.array<const float, 2>(weights[0], "weights[0]", "float32 (B, d)"),
               borrow.array<const float, 2>(weights[1], "weights[1]", "float32 (B, h)"),
               borrow.array<const float, 2>(weights[2], "weights[2]", "float32 (B, w)")},
              borrow.array<float, 4>(total, "total", "float32 (K, D, H, W)")};
        });
      },
      "logits"_a, "origins"_a, "weights"_a, "total"_a, "n_threads"_a, "stream"_a);
}

void bind_labels(py::module_& module) {
  module.def(
      "label",
      [](const Array& logits, int patch, const Shape<3>& offset, const Bounds3& box,
         const std::array<double, 3>& thresholds, const std::array<std::uint8_t, 3>& values,
         const Array& labels, const Array& counts, int n_threads, StreamHandle stream) {
        run(label, "label", n_threads, stream, [&](Borrower& borrow) -> LabelArgs {
          return {borrow.numbers<4>(logits, "logits", "(3, D, H, W)", Rows::kDense),
                  patch,
                  offset,
                  to_box(box),
                  thresholds,
                  values,
                  borrow.array<std::uint8_t, 3>(labels, "labels", "uint8 (D, H, W)", Rows::kAny),
                  borrow.array<std::int64_t, 1>(counts, "counts", "int64 (4)")};
        });
      },
      "logits"_a, "patch"_a, "offset"_a, "box"_a, "thresholds"_a, "values"_a, "labels"_a,
      "counts"_a, "n_threads"_a, "stream"_a);

  module.def(
      "expected_dice",
      [](const Array& logits, int patch, const Shape<3>& offset, const Shape<3>& size,
         std::int64_t step, const std::vector<double>& temperatures,
         const std::vector<double>& thresholds, const Array& sums, int n_threads,
         StreamHandle stream) {
        const auto borrow_args = [&](Borrower& borrow) -> ExpectedDiceArgs {
          return {borrow.numbers<4>(logits, "logits", "(K, D, H, W)", Rows::kDense),
                  patch,
                  offset,
                  size,
                  step,
                  temperatures,
                  thresholds,
                  borrow.array<std::int64_t, 2>(sums, "sums", "int64 (K, 4)")};
        };
        run(expected_dice, "expected_dice", n_threads, stream, borrow_args);
      },
      "logits"_a, "patch"_a, "offset"_a, "size"_a, "step"_a, "temperatures"_a, "thresholds"_a,
      "sums"_a, "n_threads"_a, "stream"_a);

  module.def(
      "components",
      [](const Array& labels, const Bounds3& box, std::int64_t min_voxels, const Array& counts,
         const std::optional<Array>& scratch, int n_threads, StreamHandle stream) {
        run(components, "components", n_threads, stream, [&](Borrower& borrow) -> ComponentsArgs {
          return {borrow.array<std::uint8_t, 3>(labels, "labels", "uint8 (D, H, W)", Rows::kAny),
                  to_box(box), min_voxels,
                  borrow.array<std::int64_t, 1>(counts, "counts", "int64 (258)"),
                  borrow.optional<std::int32_t, 2>(scratch, "scratch", "int32 (2, n)")};
        });
      },
      "labels"_a, "box"_a, "min_voxels"_a, "counts"_a, "scratch"_a, "n_threads"_a, "stream"_a);

  module.def(
      "stray_core",
      [](const Array& labels, const Bounds3& box, const std::array<std::uint8_t, 3>& values,
         std::int64_t min_voxels, const Array& counts, const std::optional<Array>& scratch,
         int n_threads, StreamHandle stream) {
        run(stray_core, "stray_core", n_threads, stream, [&](Borrower& borrow) -> StrayCoreArgs {
          return {borrow.array<std::uint8_t, 3>(labels, "labels", "uint8 (D, H, W)", Rows::kAny),
                  to_box(box),
                  values,
                  min_voxels,
                  borrow.array<std::int64_t, 1>(counts, "counts", "int64 (3)"),
                  borrow.optional<std::int32_t, 2>(scratch, "scratch", "int32 (4, n)")};
        });
      },
      "labels"_a, "box"_a, "values"_a, "min_voxels"_a, "counts"_a, "scratch"_a, "n_threads"_a,
      "stream"_a);
}

void bind_network(py::module_& module) {
  module.def("semantic_bridge_scratch", semantic_bridge_scratch, "reduced"_a, "n_channels"_a);
  module.def(
      "semantic_bridge",
      [](const Array& x, const Array& reduced, const Array& conv, const Array& bias,
         const Array& axis_bias, const Array& expand, const Array& out,
         const std::optional<Array>& scratch, int n_threads, StreamHandle stream) {
        const auto borrow_args = [&](Borrower& borrow) -> SemanticBridgeArgs {
          return {borrow.floats<5>(x, "x", "(B, C, D, H, W)", Rows::kDenseOnCpu),
                  borrow.floats<5>(reduced, "reduced", "(B, R, D, H, W)", Rows::kDenseOnCpu),
                  borrow.array<const float, 4>(conv, "conv", "float32 (R, 2R, 3, 3)"),
                  borrow.array<const float, 1>(bias, "bias", "float32 (R)"),
                  borrow.array<const float, 2>(axis_bias, "axis_bias", "float32 (3, R)"),
                  borrow.array<const float, 2>(expand, "expand", "float32 (C, R)"),
                  borrow.floats<5, void>(out, "out", "(B, C, D, H, W)", Rows::kDenseOnCpu),
                  borrow.optional<float, 1>(scratch, "scratch", "float32 (n)")};
        };
        run(semantic_bridge, "semantic_bridge", n_threads, stream, borrow_args);
      },
      "x"_a, "reduced"_a, "conv"_a, "bias"_a, "axis_bias"_a, "expand"_a, "out"_a, "scratch"_a,
      "n_threads"_a, "stream"_a);

  module.def(
      "semantic_attention",
      [](const Array& skip, const Array& encoded, const Array& decoded, const Array& similarity,
         const Array& w_x, const Array& bias, const Array& w_g, const Array& w_s, const Array& w_a,
         float strength, const Array& out, int n_threads, StreamHandle stream) {
        const auto borrow_args = [&](Borrower& borrow) -> SemanticAttentionArgs {
          return {borrow.floats<5>(skip, "skip", "(B, C, D, H, W)", Rows::kDenseOnCpu),
                  borrow.floats<5>(encoded, "encoded", "(B, C', D/2, H/2, W/2)", Rows::kDenseOnCpu),
                  borrow.floats<5>(decoded, "decoded", "(B, C', D/2, H/2, W/2)", Rows::kDenseOnCpu),
                  borrow.floats<5>(similarity, "similarity", "(B, K, d, h, w)", Rows::kDenseOnCpu),
                  borrow.array<const float, 2>(w_x, "w_x", "float32 (J, C')"),
                  borrow.array<const float, 1>(bias, "bias", "float32 (J)"),
                  borrow.array<const float, 2>(w_g, "w_g", "float32 (J, C')"),
                  borrow.array<const float, 2>(w_s, "w_s", "float32 (J, K)"),
                  borrow.array<const float, 4>(w_a, "w_a", "float32 (J, 2, 2, 2)"),
                  strength,
                  borrow.floats<5, void>(out, "out", "(B, C, D, H, W)", Rows::kDenseOnCpu)};
        };
        run(semantic_attention, "semantic_attention", n_threads, stream, borrow_args);
      },
      "skip"_a, "encoded"_a, "decoded"_a, "similarity"_a, "w_x"_a, "bias"_a, "w_g"_a, "w_s"_a,
      "w_a"_a, "strength"_a, "out"_a, "n_threads"_a, "stream"_a);
}

void bind_registration(py::module_& module) {
  module.def(
      "mutual_information",
      [](const Array& points, const Array& values, const Array& moving, const Array& maps,
         const Array& out, int n_threads) {
        const auto borrow_args = [&](Borrower& borrow) -> MutualInformationArgs {
          return {
              borrow.array<const float, 2>(points, "points", "float32 (N, 3)"),
              borrow.array<const std::uint8_t, 1>(values, "values", "uint8 (N)"),
              borrow.array<const std::uint8_t, 3>(moving, "moving", "uint8 (D, H, W)", Rows::kAny),
              borrow.array<const double, 3>(maps, "maps", "float64 (K, 3, 4)"),
              borrow.array<double, 2>(out, "out", "float64 (K, 2)")};
        };
        run(mutual_information, "mutual_information", n_threads, 0, borrow_args);
      },
      "points"_a, "values"_a, "moving"_a, "maps"_a, "out"_a, "n_threads"_a);
}

using Sizes = py::typing::Tuple<py::int_, py::ellipsis>;
using Description = py::typing::Tuple<py::object, py::int_, Sizes, Sizes, py::str, py::int_, bool>;

/// Owner, address, shape, strides in bytes, type, device (-1: host memory), whether it is
/// writable.
Description describe(const Array& array, StreamHandle stream) {
  Borrower borrow("describe", stream_of(stream));
  const Source& source = borrow.described_array(array, "array");
  std::vector<std::int64_t> strides = source.strides;
  for (auto& stride : strides) stride *= size_of(*source.dtype);
  return py::make_tuple(source.owner, reinterpret_cast<std::uintptr_t>(source.data),
                        py::tuple(py::cast(source.shape)), py::tuple(py::cast(strides)),
                        py::str(source.type), source.device.is_cuda ? source.device.index : -1,
                        source.writable);
}

void bind_device(py::module_& module) {
  module.attr("HAS_CUDA") = kHasCuda;
  module.attr("ISA") = isa_name();
  module.def("limit_cpus", [](int n) { cpu_limit = n; }, "n"_a);
  module.def("n_cuda_devices", n_cuda_devices);
  module.def(
      "cuda_synchronize",
      [](StreamHandle stream) {
        const py::gil_scoped_release release;
        cuda_synchronize(stream_of(stream));
      },
      "stream"_a);
  module.def("describe", describe, "array"_a, "stream"_a);
  module.def("dlpack_capsule", dlpack_capsule, "owner"_a, "address"_a, "shape"_a, "strides"_a,
             "typestr"_a, "device"_a, "versioned"_a);
}

void raise(const char* type, const char* message) {
  py::set_error(py::module_::import("fastbts.errors").attr(type), message);
}

void translate(std::exception_ptr pointer) {
  try {
    if (pointer) std::rethrow_exception(pointer);
  } catch (const InputError& error) {
    raise("InputError", error.what());
  } catch (const OptionsError& error) {
    raise("OptionsError", error.what());
  } catch (const DeviceError& error) {
    raise("DeviceError", error.what());
  }
}

}  // namespace
}  // namespace fastbts

PYBIND11_MODULE(_C, module) {
  module.doc() = "C++ ops of fastbts; use them through fastbts.ops.";
  pybind11::register_local_exception_translator(fastbts::translate);
  fastbts::bind_device(module);
  fastbts::bind_preparation(module);
  fastbts::bind_windows(module);
  fastbts::bind_labels(module);
  fastbts::bind_network(module);
  fastbts::bind_layers(module);
  fastbts::bind_registration(module);
}
