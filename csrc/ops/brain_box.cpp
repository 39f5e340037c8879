#include "ops/brain_box.h"

#include "core/error.h"

namespace fastbts {

BrainBox brain_box(const AnyView<4>& volume, int n_threads) {
  require<InputError>(volume.shape[0] > 0, "brain_box: volume: expected at least one modality, got shape ",
                      volume.shape);
  return brain_box_cpu(volume, n_threads);
}

}  // namespace fastbts
