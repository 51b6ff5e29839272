"""Cards of models and datasets, and publishing on the Hub: `models.publish_model`, `datasets.publish_dataset`."""
