"""The rendered edge in its real image, before an upstream that behaves as badly as Dify may."""
