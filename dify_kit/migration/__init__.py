"""Moving Python clients from Dify's service API to an OpenAI-compatible one."""
