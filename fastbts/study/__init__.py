"""From a raw study, unregistered images with their skulls, to labels in the patient's images."""
