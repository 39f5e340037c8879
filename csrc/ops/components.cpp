#include "ops/components.h"

#include "core/error.h"

namespace fastbts {

PartCounts components(const ComponentsArgs& args, int n_threads) {
  require_inside(args.box, args.labels.shape, "components: box", "labels");
  require<OptionsError>(args.min_voxels >= 0, "components: min_voxels: expected 0 or more, got ", args.min_voxels);
  return components_cpu(args, n_threads);
}

}  // namespace fastbts
