"""Cards of models and data sets, and what is pushed to the Hub: `models.publish_model`, `datasets.publish_dataset`."""
