#include <pybind11/stl.h>

#include <array>
#include <cstdint>

#include "bindings/gate.h"
#include "core/cpu/wide.h"
#include "core/cuda/cuda_device.h"
#include "ops/blend.h"
#include "ops/brain_box.h"
#include "ops/components.h"
#include "ops/label.h"
#include "ops/normalize.h"
#include "ops/resample.h"
#include "ops/resample_affine.h"
#include "ops/semantic_attention.h"
#include "ops/semantic_bridge.h"
#include "ops/window.h"

namespace fastbts {
namespace {

namespace py = pybind11;
using gate::Gate;
using gate::Rows;
using Pairs = std::array<std::array<std::int64_t, 2>, 3>;

Box to_box(const Pairs& pairs) {
  Box box;
  for (std::size_t i = 0; i < 3; ++i) box[i] = {pairs[i][0], pairs[i][1]};
  return box;
}

Stream stream_of(std::uintptr_t handle) { return {reinterpret_cast<void*>(handle)}; }

void bind_brain_box(const py::object& volume, const py::object& found, int n_threads,
                    std::uintptr_t stream) {
  Gate gate(stream_of(stream));
  const BrainBoxArgs args{
      gate.borrow_any<4>(volume, "brain_box: volume", "a real image (M, D, H, W)"),
      gate.borrow<std::int64_t, 1>(found, "brain_box: found", "int64 (7 + 2M)")};
  const py::gil_scoped_release release;
  brain_box(args, n_threads, stream_of(stream));
}

void bind_normalize(const py::object& volume, const Pairs& box,
                    const std::array<double, 2>& percentiles, const py::object& tensor,
                    const py::object& stats, const py::object& scratch, int n_threads,
                    std::uintptr_t stream) {
  Gate gate(stream_of(stream));
  NormalizeArgs args{gate.borrow_any<4>(volume, "normalize: volume", "a real image (M, D, H, W)"),
                     to_box(box),
                     percentiles,
                     gate.borrow_floats<4, void>(tensor, "normalize: tensor", "(M, D, H, W)"),
                     gate.borrow<double, 2>(stats, "normalize: stats", "float64 (M, 4)"),
                     {}};
  if (!scratch.is_none())
    args.scratch = gate.borrow<std::uint8_t, 1>(scratch, "normalize: scratch", "uint8 (n)");
  const py::gil_scoped_release release;
  normalize(args, n_threads, stream_of(stream));
}

void bind_window(const py::object& tensor, const py::object& origins, const py::object& out,
                 int n_threads, std::uintptr_t stream) {
  Gate gate(stream_of(stream));
  const WindowArgs args{
      gate.borrow_floats<4>(tensor, "window: tensor", "(M, D, H, W)"),
      gate.borrow<const std::int32_t, 2>(origins, "window: origins", "int32 (B, 3)", Rows::kAny),
      gate.borrow_floats<5, void>(out, "window: out", "(B, M, d, h, w)", Rows::kAny)};
  const py::gil_scoped_release release;
  window(args, n_threads, stream_of(stream));
}

void bind_blend(const py::object& logits, const py::object& origins,
                const std::array<py::object, 3>& weights, const py::object& total, int n_threads,
                std::uintptr_t stream) {
  Gate gate(stream_of(stream));
  const BlendArgs args{
      gate.borrow_floats<5>(logits, "blend: logits", "(B, K, d, h, w)"),
      gate.borrow<const std::int32_t, 2>(origins, "blend: origins", "int32 (B, 3)", Rows::kAny),
      {gate.borrow<const float, 2>(weights[0], "blend: weights[0]", "float32 (B, d)"),
       gate.borrow<const float, 2>(weights[1], "blend: weights[1]", "float32 (B, h)"),
       gate.borrow<const float, 2>(weights[2], "blend: weights[2]", "float32 (B, w)")},
      gate.borrow<float, 4>(total, "blend: total", "float32 (K, D, H, W)")};
  const py::gil_scoped_release release;
  blend(args, n_threads, stream_of(stream));
}

void bind_label(const py::object& logits, const Shape<3>& offset, const Pairs& box,
                const std::array<double, 3>& thresholds, const std::array<std::uint8_t, 3>& values,
                const py::object& labels, const py::object& counts, int n_threads,
                std::uintptr_t stream) {
  Gate gate(stream_of(stream));
  const LabelArgs args{
      gate.borrow_floats<4>(logits, "label: logits", "(3, D, H, W)"),
      offset,
      to_box(box),
      thresholds,
      values,
      gate.borrow<std::uint8_t, 3>(labels, "label: labels", "uint8 (D, H, W)", Rows::kAny),
      gate.borrow<std::int64_t, 1>(counts, "label: counts", "int64 (3)")};
  const py::gil_scoped_release release;
  label(args, n_threads, stream_of(stream));
}

void bind_resample(const py::object& tensor, const py::object& out, int n_threads,
                   std::uintptr_t stream) {
  Gate gate(stream_of(stream));
  const ResampleArgs args{gate.borrow_floats<4>(tensor, "resample: tensor", "(C, D, H, W)"),
                          gate.borrow_floats<4, void>(out, "resample: out", "(C, D', H', W')")};
  const py::gil_scoped_release release;
  resample(args, n_threads, stream_of(stream));
}

void bind_resample_affine(const py::object& tensor, const AffineMap& matrix, bool nearest,
                          float outside, const py::object& out, int n_threads,
                          std::uintptr_t stream) {
  Gate gate(stream_of(stream));
  const ResampleAffineArgs args{
      gate.borrow_any<4>(tensor, "resample_affine: tensor", "a real tensor (C, D, H, W)"), matrix,
      nearest, outside,
      gate.borrow_any<4, void>(out, "resample_affine: out", "float32 or uint8 (C, D', H', W')")};
  const py::gil_scoped_release release;
  resample_affine(args, n_threads, stream_of(stream));
}

void bind_components(const py::object& labels, const Pairs& box, std::int64_t min_voxels,
                     const py::object& counts, const py::object& scratch, int n_threads,
                     std::uintptr_t stream) {
  Gate gate(stream_of(stream));
  ComponentsArgs args{
      gate.borrow<std::uint8_t, 3>(labels, "components: labels", "uint8 (D, H, W)", Rows::kAny),
      to_box(box),
      min_voxels,
      gate.borrow<std::int64_t, 1>(counts, "components: counts", "int64 (258)"),
      {}};
  if (!scratch.is_none())
    args.scratch = gate.borrow<std::int32_t, 2>(scratch, "components: scratch", "int32 (2, n)");
  const py::gil_scoped_release release;
  components(args, n_threads, stream_of(stream));
}

using Three = std::array<py::object, 3>;         // planes z, y, x
using PlaneWeights = std::array<py::object, 4>;  // conv, bias, view, expand

SemanticProjectArgs borrow_project(Gate& gate, const py::object& tensor, const Three& out) {
  return {gate.borrow_floats<5>(tensor, "semantic_project: tensor", "(B, R, D, H, W)"),
          gate.borrow_floats<4, void>(out[0], "semantic_project: out.z", "(B, 2R, H, W)"),
          gate.borrow_floats<4, void>(out[1], "semantic_project: out.y", "(B, 2R, D, W)"),
          gate.borrow_floats<4, void>(out[2], "semantic_project: out.x", "(B, 2R, D, H)")};
}

SemanticPlaneArgs borrow_plane(Gate& gate, const Three& planes, const PlaneWeights& weights,
                               const Three& out) {
  const auto borrow_read = [&gate](const py::object& plane, const char* name) {
    return gate.borrow_floats<4>(plane, name, "(B, 2R, *, *)");
  };
  const auto borrow_out = [&gate](const py::object& plane, const char* name) {
    return gate.borrow_floats<4, void>(plane, name, "(B, C, *, *)");
  };
  const auto& [conv, bias, view, expand] = weights;
  return {{borrow_read(planes[0], "semantic_plane: planes.z"),
           borrow_read(planes[1], "semantic_plane: planes.y"),
           borrow_read(planes[2], "semantic_plane: planes.x")},
          gate.borrow<const float, 4>(conv, "semantic_plane: conv", "float32 (R, 2R, 3, 3)"),
          gate.borrow<const float, 1>(bias, "semantic_plane: bias", "float32 (R)"),
          gate.borrow<const float, 2>(view, "semantic_plane: view", "float32 (3, R)"),
          gate.borrow<const float, 2>(expand, "semantic_plane: expand", "float32 (C, R)"),
          {borrow_out(out[0], "semantic_plane: out.z"), borrow_out(out[1], "semantic_plane: out.y"),
           borrow_out(out[2], "semantic_plane: out.x")}};
}

SemanticLiftArgs borrow_lift(Gate& gate, const Three& planes, const py::object& tensor, bool add) {
  return {gate.borrow_floats<4>(planes[0], "semantic_lift: z", "(B, C, H, W)"),
          gate.borrow_floats<4>(planes[1], "semantic_lift: y", "(B, C, D, W)"),
          gate.borrow_floats<4>(planes[2], "semantic_lift: x", "(B, C, D, H)"),
          gate.borrow_floats<5, void>(tensor, "semantic_lift: tensor", "(B, C, D, H, W)"), add};
}

void bind_semantic_project(const py::object& tensor, const Three& out, int n_threads,
                           std::uintptr_t stream) {
  Gate gate(stream_of(stream));
  const SemanticProjectArgs args = borrow_project(gate, tensor, out);
  const py::gil_scoped_release release;
  semantic_project(args, n_threads, stream_of(stream));
}

void bind_semantic_plane(const Three& planes, const PlaneWeights& weights, const Three& out,
                         int n_threads, std::uintptr_t stream) {
  Gate gate(stream_of(stream));
  const SemanticPlaneArgs args = borrow_plane(gate, planes, weights, out);
  const py::gil_scoped_release release;
  semantic_plane(args, n_threads, stream_of(stream));
}

void bind_semantic_lift(const Three& planes, const py::object& tensor, bool add, int n_threads,
                        std::uintptr_t stream) {
  Gate gate(stream_of(stream));
  const SemanticLiftArgs args = borrow_lift(gate, planes, tensor, add);
  const py::gil_scoped_release release;
  semantic_lift(args, n_threads, stream_of(stream));
}

void bind_semantic_bridge(const py::object& reduced, const PlaneWeights& weights,
                          const py::object& target, const Three& planes, const Three& seen,
                          int n_threads, std::uintptr_t stream) {
  Gate gate(stream_of(stream));
  const SemanticProjectArgs project = borrow_project(gate, reduced, planes);
  const SemanticPlaneArgs plane = borrow_plane(gate, planes, weights, seen);
  const SemanticLiftArgs lift = borrow_lift(gate, seen, target, true);
  const py::gil_scoped_release release;
  semantic_bridge(project, plane, lift, n_threads, stream_of(stream));
}

void bind_semantic_attention(const py::object& skip, const py::object& encoded,
                             const py::object& decoded, const py::object& similarity,
                             const py::object& w_x, const py::object& bias, const py::object& w_g,
                             const py::object& w_s, const py::object& w_a, float strength,
                             const py::object& out, int n_threads, std::uintptr_t stream) {
  Gate gate(stream_of(stream));
  const SemanticAttentionArgs args{
      gate.borrow_floats<5>(skip, "semantic_attention: skip", "(B, C, D, H, W)"),
      gate.borrow_floats<5>(encoded, "semantic_attention: encoded", "(B, C', D/2, H/2, W/2)"),
      gate.borrow_floats<5>(decoded, "semantic_attention: decoded", "(B, C', D/2, H/2, W/2)"),
      gate.borrow_floats<5>(similarity, "semantic_attention: similarity", "(B, K, d, h, w)"),
      gate.borrow<const float, 2>(w_x, "semantic_attention: w_x", "float32 (J, C')"),
      gate.borrow<const float, 1>(bias, "semantic_attention: bias", "float32 (J)"),
      gate.borrow<const float, 2>(w_g, "semantic_attention: w_g", "float32 (J, C')"),
      gate.borrow<const float, 2>(w_s, "semantic_attention: w_s", "float32 (J, K)"),
      gate.borrow<const float, 4>(w_a, "semantic_attention: w_a", "float32 (J, 2, 2, 2)"),
      strength,
      gate.borrow_floats<5, void>(out, "semantic_attention: out", "(B, C, D, H, W)")};
  const py::gil_scoped_release release;
  semantic_attention(args, n_threads, stream_of(stream));
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
  using namespace fastbts;
  using py::literals::operator""_a;
  module.doc() = "C++ ops of fastbts; use them through fastbts.ops.";
  py::register_local_exception_translator(translate);
  module.attr("HAS_CUDA") = kHasCuda;
  module.attr("ISA") = isa_name();
  module.def("n_cuda_devices", n_cuda_devices);
  module.def(
      "cuda_synchronize",
      [](std::uintptr_t stream) {
        const py::gil_scoped_release release;
        cuda_synchronize(stream_of(stream));
      },
      "stream"_a);
  module.def("normalize_scratch", normalize_scratch, "n_modalities"_a, "n_voxels"_a);
  module.def("brain_box", bind_brain_box, "volume"_a, "found"_a, "n_threads"_a, "stream"_a);
  module.def("normalize", bind_normalize, "volume"_a, "box"_a, "percentiles"_a, "tensor"_a,
             "stats"_a, "scratch"_a, "n_threads"_a, "stream"_a);
  module.def("window", bind_window, "tensor"_a, "origins"_a, "out"_a, "n_threads"_a, "stream"_a);
  module.def("blend", bind_blend, "logits"_a, "origins"_a, "weights"_a, "total"_a, "n_threads"_a,
             "stream"_a);
  module.def("label", bind_label, "logits"_a, "offset"_a, "box"_a, "thresholds"_a, "values"_a,
             "labels"_a, "counts"_a, "n_threads"_a, "stream"_a);
  module.def("resample", bind_resample, "tensor"_a, "out"_a, "n_threads"_a, "stream"_a);
  module.def("resample_affine", bind_resample_affine, "tensor"_a, "matrix"_a, "nearest"_a,
             "outside"_a, "out"_a, "n_threads"_a, "stream"_a);
  module.def("components", bind_components, "labels"_a, "box"_a, "min_voxels"_a, "counts"_a,
             "scratch"_a, "n_threads"_a, "stream"_a);
  module.def("semantic_project", bind_semantic_project, "tensor"_a, "out"_a, "n_threads"_a,
             "stream"_a);
  module.def("semantic_plane", bind_semantic_plane, "planes"_a, "weights"_a, "out"_a, "n_threads"_a,
             "stream"_a);
  module.def("semantic_lift", bind_semantic_lift, "planes"_a, "tensor"_a, "add"_a, "n_threads"_a,
             "stream"_a);
  module.def("semantic_bridge", bind_semantic_bridge, "reduced"_a, "weights"_a, "target"_a,
             "planes"_a, "seen"_a, "n_threads"_a, "stream"_a);
  module.def("semantic_attention", bind_semantic_attention, "skip"_a, "encoded"_a, "decoded"_a,
             "similarity"_a, "w_x"_a, "bias"_a, "w_g"_a, "w_s"_a, "w_a"_a, "strength"_a, "out"_a,
             "n_threads"_a, "stream"_a);
}
