"""The tables of api for models: their credentials, which of them are listed, enabled and default."""

SCHEMA = """
create table if not exists provider_credentials (
  id uuid primary key, tenant_id uuid not null, provider text not null, name text not null, secrets jsonb not null,
  created_at timestamptz not null default now());
create table if not exists current_provider_credentials (
  tenant_id uuid not null, provider text not null, credential_id uuid not null, primary key (tenant_id, provider));
create table if not exists model_credentials (
  id uuid primary key, tenant_id uuid not null, provider text not null, model text not null, model_type text not null,
  name text not null, secrets jsonb not null, created_at timestamptz not null default now());
create table if not exists listed_models (
  tenant_id uuid not null, provider text not null, model text not null, model_type text not null,
  credential_id uuid not null, created_at timestamptz not null default now(),
  primary key (tenant_id, provider, model, model_type));
create table if not exists disabled_models (
  tenant_id uuid not null, provider text not null, model text not null, model_type text not null,
  primary key (tenant_id, provider, model, model_type));
create table if not exists default_models (
  tenant_id uuid not null, model_type text not null, provider text not null, model text not null,
  primary key (tenant_id, model_type));
"""
