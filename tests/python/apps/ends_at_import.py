"""A worker that ends while it loads its application, as after a fault in an extension module."""

import os

os._exit(9)
