"""The tiny world: hands, objects, grasps, pictures and their exact truth."""
