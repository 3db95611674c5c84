"""nbgrader's settings for the servers of all users of a hub: a folder in JUPYTER_CONFIG_PATH, or /etc/jupyter."""

import os

c = get_config()  # noqa: F821 - nbgrader gives it

c.CourseDirectory.course_id = "onnx-scroll"
c.Exchange.root = os.environ.get("COURSE_EXCHANGE", "/usr/local/share/nbgrader/exchange")
# nbgrader takes the name of the system's user, which on many hubs is the same for everybody.
if "JUPYTERHUB_USER" in os.environ:
    c.CourseDirectory.student_id = os.environ["JUPYTERHUB_USER"]
