"""The OAuth 2.0 service of dify-kit: issues, revokes and verifies access tokens for Dify's service API."""
