"""Footage, photos and sound as files hold them."""
