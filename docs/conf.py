"""Settings of Sphinx: ``make docs`` builds these pages into ``build/docs``."""

import sys
from pathlib import Path

from influxrelay import __version__

sys.path.insert(0, str(Path(__file__).parent))

project = "influxrelay"
author = "The influxrelay authors"
version = release = __version__
extensions = ["config_reference"]
root_doc = "index"
nitpicky = True
html_theme = "alabaster"
html_theme_options = {"description": "High availability for InfluxDB 1.x", "page_width": "70em", "fixed_sidebar": True}
html_copy_source = False
html_show_copyright = False
