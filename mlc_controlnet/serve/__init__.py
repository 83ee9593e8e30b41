"""The pipeline as a service over HTTP, on the user's own machine or server.

A request passes the guard (`guard`), becomes `GenerateRequest`s (`generate_body`, `webui_body`), waits in the one
bounded queue of the device (`job_queue`), and is drawn by a process of its own (`worker`). Two interfaces lead there:
our own (`generate_api`), and that of Stable Diffusion web UI (`webui_api`), which existing clients speak.
"""
