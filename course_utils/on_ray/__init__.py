"""One model in several processes, with Ray.

It needs numpy, onnxruntime and ray[data,serve].

    python -m on_ray.scale_out [address]     in the folder that holds `on_ray/`

A copy of this folder works alone: nothing in it imports the course.
"""
