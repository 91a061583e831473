"""The HTTP server: pages, WHIP, WHEP, WebSocket."""
