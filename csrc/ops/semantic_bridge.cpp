#include "ops/semantic_bridge.h"

#include "core/array/dense.h"
#include "core/array/error.h"
#include "core/cuda/device.h"

namespace fastbts {
namespace {

void check_weights(const SemanticBridgeArgs& args) {
  const std::int64_t n_r = args.reduced.shape[1];
  require_shape("semantic_bridge: conv", args.conv.shape, {n_r, 2 * n_r, 3, 3});
  require_shape("semantic_bridge: bias", args.bias.shape, {n_r});
  require_shape("semantic_bridge: axis_bias", args.axis_bias.shape, {3, n_r});
  require_shape("semantic_bridge: expand", args.expand.shape, {args.x.shape[1], n_r});
}

void check_scratch(const SemanticBridgeArgs& args) {
  const std::int64_t expected = semantic_bridge_scratch(args.reduced.shape, args.x.shape[1]);
  require<InputError>(args.scratch.shape[0] >= expected, "semantic_bridge: scratch: expected at ",
                      "least ", expected, " float32, got ", args.scratch.shape[0]);
}

}  // namespace

void semantic_bridge(const SemanticBridgeArgs& args, int n_threads, Stream stream) {
  const auto [n_b, n_c, n_d, n_h, n_w] = args.x.shape;
  require<InputError>(n_d > 0 && n_h > 0 && n_w > 0,
                      "semantic_bridge: x: expected at least one voxel, got shape ", args.x.shape);
  require_shape("semantic_bridge: reduced", args.reduced.shape,
                {n_b, args.reduced.shape[1], n_d, n_h, n_w});
  require_shape("semantic_bridge: out", args.out.shape, args.x.shape);
  require<InputError>(args.reduced.dtype == args.x.dtype,
                      "semantic_bridge: reduced: expected the element type of x");
  require<InputError>(args.out.dtype == args.x.dtype,
                      "semantic_bridge: out: expected the element type of x");
  check_weights(args);
  on_device(
      args.x.device, [&] { semantic_bridge_cpu(args, n_threads); },
      [&](auto) {
        check_scratch(args);
        semantic_bridge_cuda(args, stream);
      });
}

}  // namespace fastbts
