"""Google Analytics 4: results out, by the Measurement Protocol."""

from connectors.google_analytics.connector import GoogleAnalytics

connector = GoogleAnalytics

__all__ = ["GoogleAnalytics", "connector"]
