//! What a token may do, and what the app is told: for whoever checks that before it is needed.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Call, FeatureJson, Heroku};
use crate::dynos::Authorization;
use crate::ports::{ApiError, ApiErrorKind};
use crate::secret::Secret;

impl Heroku {
    /// The e-mail address of the token's account. A token of few scopes may not ask: [`ApiErrorKind::Forbidden`].
    pub fn account(&self) -> Result<String, ApiError> {
        self.get::<AccountJson>(&Call::get("/account".to_owned())).map(|account| account.email)
    }

    /// What this very token is good for; `None` where the account has no such authorization. A token of few scopes may not ask:
    /// [`ApiErrorKind::Forbidden`].
    pub fn authorization(&self) -> Result<Option<Authorization>, ApiError> {
        let call = Call::list("/oauth/authorizations".to_owned(), "id ..; max=1000");
        let (authorizations, _): (Vec<AuthorizationJson>, _) = self.list(call)?;
        let ours = authorizations.into_iter().find_map(|authorization| {
            let token = authorization.access_token.filter(|token| token.token.expose() == self.token.expose())?;
            Some(Authorization { scope: authorization.scope, expires_in_s: token.expires_in })
        });
        Ok(ours)
    }

    /// The names of the app's config vars. Their values are read over and kept nowhere.
    #[allow(clippy::zero_sized_map_values, reason = "no set reads over the values")]
    pub fn config_var_names(&self) -> Result<BTreeSet<String>, ApiError> {
        let vars: BTreeMap<String, IgnoredAny> = self.get(&Call::get(self.path("/config-vars")))?;
        Ok(vars.into_keys().collect())
    }

    /// Whether dynos are told their app and release. `false` where the app does not know the feature (404).
    pub fn tells_metadata(&self) -> Result<bool, ApiError> {
        match self.get::<FeatureJson>(&Call::get(self.path("/features/runtime-dyno-metadata"))) {
            Ok(feature) => Ok(feature.enabled),
            Err(error) if error.kind == ApiErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[derive(Deserialize)]
struct AccountJson {
    email: String,
}

#[derive(Deserialize)]
struct AuthorizationJson {
    #[serde(default)]
    scope: Vec<String>,
    access_token: Option<AccessTokenJson>,
}

#[derive(Deserialize)]
struct AccessTokenJson {
    #[serde(deserialize_with = "secret")]
    token: Secret,
    expires_in: Option<i64>,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(|text| Secret::new(&text))
}
