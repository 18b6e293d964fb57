"""What every hosted service is built from: settings, HTTP that never pays twice, sizes, checks of what comes back."""

__all__: list[str] = []
