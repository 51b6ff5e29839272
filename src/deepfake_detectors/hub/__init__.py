"""Cards of models and datasets, and what is pushed to the Hub: `models.publish_model`, `datasets.publish_dataset`."""
