"""`nextrapolate-server` where the client alone was installed."""

import subprocess
import sys


def test_what_to_install_is_said() -> None:
    without = "import sys; sys.modules['fastapi'] = None"
    program = f"{without}; from nextrapolate_service.server.installed import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("nextrapolate-server: fastapi is not installed")
    assert "pip install" in done.stderr
    assert "Traceback" not in done.stderr
