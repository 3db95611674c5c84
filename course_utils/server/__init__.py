"""A server for one model, of small files.

It needs numpy, onnxruntime, fastapi, uvicorn and prometheus-client.

    python -m server.serve [settings.json]     in the folder that holds `server/`

A copy of this folder works alone: nothing in it imports the course.
"""
