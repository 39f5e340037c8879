#include "ops/semantic_bridge.h"

#include <string>

#include "core/error.h"

namespace fastbts {
namespace {

/// Throws unless the planes are those of a volume (B, C, D, H, W), with n_channels channels.
template <typename T>
void require_planes(const char* op, const View<T, 4>& z, const View<T, 4>& y, const View<T, 4>& x,
                    const Shape<5>& volume, std::int64_t n_channels) {
  const auto [n_b, n_c, n_d, n_h, n_w] = volume;
  const auto check = [&](const char* name, const Shape<4>& got, const Shape<4>& expected) {
    require<InputError>(got == expected, op, ": ", name, ": expected shape ", expected, " as tensor has shape ", volume,
                        ", got ", got);
  };
  check("z", z.shape, {n_b, n_channels, n_h, n_w});
  check("y", y.shape, {n_b, n_channels, n_d, n_w});
  check("x", x.shape, {n_b, n_channels, n_d, n_h});
}

}  // namespace

void semantic_project(const SemanticProjectArgs& args, int n_threads) {
  const auto& shape = args.tensor.shape;
  require<InputError>(shape[2] > 0 && shape[3] > 0 && shape[4] > 0,
                      "semantic_project: tensor: expected at least one voxel, got shape ", shape);
  require_planes("semantic_project", args.z, args.y, args.x, shape, 2 * shape[1]);
  semantic_project_cpu(args, n_threads);
}

void semantic_plane(const SemanticPlaneArgs& args, int n_threads) {
  const std::int64_t n_r = args.conv.shape[0], n_c = args.expand.shape[0];
  const auto check = [](const std::string& name, const auto& got, const auto& expected) {
    require<InputError>(got == expected, "semantic_plane: ", name, ": expected shape ", expected, ", got ", got);
  };
  check("conv", args.conv.shape, Shape<4>{n_r, 2 * n_r, 3, 3});
  check("bias", args.bias.shape, Shape<1>{n_r});
  check("view", args.view.shape, Shape<2>{3, n_r});
  check("expand", args.expand.shape, Shape<2>{n_c, n_r});
  for (std::size_t i = 0; i < 3; ++i) {
    const std::string axis(1, "zyx"[i]);
    const auto [n_b, n_channels, n_rows, n_columns] = args.planes[i].shape;
    check("planes." + axis, args.planes[i].shape, Shape<4>{args.planes[0].shape[0], 2 * n_r, n_rows, n_columns});
    check("out." + axis, args.out[i].shape, Shape<4>{n_b, n_c, n_rows, n_columns});
  }
  semantic_plane_cpu(args, n_threads);
}

void semantic_lift(const SemanticLiftArgs& args, int n_threads) {
  require_planes("semantic_lift", args.z, args.y, args.x, args.tensor.shape, args.tensor.shape[1]);
  semantic_lift_cpu(args, n_threads);
}

}  // namespace fastbts
