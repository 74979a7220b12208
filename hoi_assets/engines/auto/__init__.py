"""Text-to-image and image-editing pipelines of any class, called by what their signature takes."""
