#include "ops/semantic_bridge.h"

#include <string>

#include "core/array/error.h"
#include "core/cpu/parallel.h"
#include "core/cuda/cuda_device.h"

namespace fastbts {
namespace {

/// Throws unless the planes are those of a volume (B, C, D, H, W), with n_channels channels, and of
/// its element type.
template <typename Planes, typename Volume>
void require_planes(const char* op, const Planes& planes, const Volume& volume,
                    std::int64_t n_channels) {
  const auto [n_b, n_c, n_d, n_h, n_w] = volume.shape;
  const auto check = [&](const char* name, const auto& plane, const Shape<4>& expected) {
    require<InputError>(plane.shape == expected, op, ": ", name, ": expected shape ", expected,
                        " as tensor has shape ", volume.shape, ", got ", plane.shape);
    require<InputError>(plane.dtype == volume.dtype, op, ": ", name,
                        ": expected the element type of tensor");
  };
  check("z", planes.z, {n_b, n_channels, n_h, n_w});
  check("y", planes.y, {n_b, n_channels, n_d, n_w});
  check("x", planes.x, {n_b, n_channels, n_d, n_h});
}

void require_weights(const SemanticPlaneArgs& args, std::int64_t n_r, std::int64_t n_c) {
  const auto check = [](const char* name, const auto& got, const auto& expected) {
    require<InputError>(got == expected, "semantic_plane: ", name, ": expected shape ", expected,
                        ", got ", got);
  };
  check("conv", args.conv.shape, Shape<4>{n_r, 2 * n_r, 3, 3});
  check("bias", args.bias.shape, Shape<1>{n_r});
  check("view", args.view.shape, Shape<2>{3, n_r});
  check("expand", args.expand.shape, Shape<2>{n_c, n_r});
}

}  // namespace

void semantic_project(const SemanticProjectArgs& args, int n_threads, Stream stream) {
  const auto& shape = args.tensor.shape;
  require<InputError>(shape[2] > 0 && shape[3] > 0 && shape[4] > 0,
                      "semantic_project: tensor: expected at least one voxel, got shape ", shape);
  require_planes("semantic_project", args, args.tensor, 2 * shape[1]);
  on_device(
      args.tensor.device, [&] { semantic_project_cpu(args, n_threads); },
      [&](auto) { semantic_project_cuda(args, stream); });
}

void semantic_plane(const SemanticPlaneArgs& args, int n_threads, Stream stream) {
  const std::int64_t n_r = args.conv.shape[0], n_c = args.expand.shape[0];
  require_weights(args, n_r, n_c);
  const AnyView<4>& first = args.planes[0];
  for (std::size_t i = 0; i < 3; ++i) {
    const std::string axis(1, "zyx"[i]);
    const auto check = [&](const char* name, const auto& got, const Shape<4>& expected) {
      require<InputError>(got.shape == expected, "semantic_plane: ", name, axis,
                          ": expected shape ", expected, ", got ", got.shape);
      require<InputError>(got.dtype == first.dtype, "semantic_plane: ", name, axis,
                          ": expected the element type of planes.z");
    };
    const auto [n_b, n_channels, n_rows, n_columns] = args.planes[i].shape;
    check("planes.", args.planes[i], {first.shape[0], 2 * n_r, n_rows, n_columns});
    check("out.", args.out[i], {n_b, n_c, n_rows, n_columns});
  }
  on_device(
      first.device, [&] { semantic_plane_cpu(args, n_threads); },
      [&](auto) { semantic_plane_cuda(args, stream); });
}

void semantic_lift(const SemanticLiftArgs& args, int n_threads, Stream stream) {
  require_planes("semantic_lift", args, args.tensor, args.tensor.shape[1]);
  on_device(
      args.tensor.device, [&] { semantic_lift_cpu(args, n_threads); },
      [&](auto) { semantic_lift_cuda(args, stream); });
}

void semantic_bridge(const SemanticProjectArgs& project, const SemanticPlaneArgs& plane,
                     const SemanticLiftArgs& lift, int n_threads, Stream stream) {
  Team team(n_workers_of(n_threads));
  semantic_project(project, n_threads, stream);
  semantic_plane(plane, n_threads, stream);
  semantic_lift(lift, n_threads, stream);
}

}  // namespace fastbts
