//! The rules of design.md, 'Who it runs as', as tables.

use super::*;

fn root() -> Facts {
    Facts::default()
}

fn sudo(uid: &str) -> Facts {
    Facts {
        sudo_uid: Some(uid.to_owned()),
        sudo_gid: Some("100".to_owned()),
        sudo_user: Some("alice".to_owned()),
        ..root()
    }
}

fn named(user: &str) -> Choice {
    Choice::Named {
        user: user.to_owned(),
    }
}

#[test]
fn the_choice_follows_the_table() {
    let alice = Choice::Sudo {
        uid: 1000,
        gid: Some(100),
        name: Some("alice".to_owned()),
    };
    let asked = |user: &str, facts| Facts {
        asked: Some(user.to_owned()),
        ..facts
    };
    let configured = |facts| Facts {
        host_default: Some("analyst".to_owned()),
        ..facts
    };
    let bad = |value: &str| {
        Err(IdentityError::BadSudoUid {
            value: value.to_owned(),
        })
    };
    let user = Facts {
        uid: 1000,
        ..root()
    };
    for (case, facts, expected) in [
        (
            "a plain user is the caller",
            user.clone(),
            Ok(Choice::Caller { uid: 1000 }),
        ),
        (
            "sudo -u bob: bob, not who called sudo",
            Facts {
                uid: 1001,
                ..sudo("1000")
            },
            Ok(Choice::Caller { uid: 1001 }),
        ),
        (
            "plain root has to say",
            root(),
            Err(IdentityError::RootMustSay),
        ),
        (
            "sudo by a user is that user",
            sudo("1000"),
            Ok(alice.clone()),
        ),
        (
            "sudo by root is plain root",
            sudo("0"),
            Err(IdentityError::RootMustSay),
        ),
        (
            "--user wins over sudo",
            asked("bob", sudo("1000")),
            Ok(named("bob")),
        ),
        (
            "--user root is allowed",
            asked("root", root()),
            Ok(named("root")),
        ),
        (
            "--user wins over the host's",
            asked("bob", configured(root())),
            Ok(named("bob")),
        ),
        (
            "the host's is for plain root",
            configured(root()),
            Ok(named("analyst")),
        ),
        (
            "and for root's sudo",
            configured(sudo("0")),
            Ok(named("analyst")),
        ),
        (
            "but not for a user's sudo",
            configured(sudo("1000")),
            Ok(alice),
        ),
        (
            "nor for a plain user",
            configured(user),
            Ok(Choice::Caller { uid: 1000 }),
        ),
        ("SUDO_UID that is a name", sudo("alice"), bad("alice")),
        ("SUDO_UID that is signed", sudo("+5"), bad("+5")),
        (
            "SUDO_UID that means none",
            sudo("4294967295"),
            bad("4294967295"),
        ),
    ] {
        assert_eq!(choose(&facts), expected, "{case}");
    }
}

struct Fixed;

impl Fixed {
    fn all() -> Vec<Account> {
        [
            (0, 0, "root", "/root"),
            (1000, 100, "alice", "/home/alice"),
            (77, 100, "1000", "/odd"),
        ]
        .map(|(uid, gid, name, home)| Account {
            uid,
            gid,
            name: name.to_owned(),
            home: home.into(),
        })
        .into()
    }
}

impl Accounts for Fixed {
    fn by_name(&self, name: &str) -> Result<Option<Account>, String> {
        match name {
            "broken" => Err("LDAP is down".to_owned()),
            _ => Ok(Self::all().into_iter().find(|account| account.name == name)),
        }
    }

    fn by_uid(&self, uid: u32) -> Result<Option<Account>, String> {
        Ok(Self::all().into_iter().find(|account| account.uid == uid))
    }

    fn groups(&self, account: &Account) -> Result<Vec<u32>, String> {
        Ok(vec![account.gid, 27])
    }

    fn group(&self, _name: &str) -> Result<Option<u32>, String> {
        Ok(None)
    }
}

const ROOT: Caller = Caller {
    uid: 0,
    gid: 0,
    groups: Vec::new(),
};

fn alice() -> Identity {
    Identity {
        uid: 1000,
        gid: 100,
        groups: vec![100, 27],
        name: Some("alice".to_owned()),
        home: Some("/home/alice".into()),
        change: Change::Changed,
    }
}

#[test]
fn a_named_user_gets_that_users_groups_and_home() {
    assert_eq!(resolve(&named("alice"), &ROOT, &Fixed), Ok(alice()));
    let sudo = Choice::Sudo {
        uid: 1000,
        gid: Some(5),
        name: Some("other".to_owned()),
    };
    assert_eq!(resolve(&sudo, &ROOT, &Fixed), Ok(alice()));
}

#[test]
fn a_name_of_digits_is_a_name_first() {
    assert_eq!(
        resolve(&named("1000"), &ROOT, &Fixed).map(|identity| identity.uid),
        Ok(77)
    );
    assert_eq!(
        resolve(&named("0"), &ROOT, &Fixed).map(|identity| identity.is_root()),
        Ok(true)
    );
}

#[test]
fn a_number_without_an_account_never_gets_group_0() {
    let identity = resolve(&named("4242"), &ROOT, &Fixed);
    let plain = |gid, name| Identity {
        uid: 4242,
        gid,
        groups: vec![gid],
        name,
        home: None,
        change: Change::Changed,
    };
    assert_eq!(identity, Ok(plain(4242, None)));
    let name = Some("ldapuser".to_owned());
    let sudo = Choice::Sudo {
        uid: 4242,
        gid: Some(500),
        name: name.clone(),
    };
    assert_eq!(resolve(&sudo, &ROOT, &Fixed), Ok(plain(500, name)));
}

#[test]
fn unknown_users_and_broken_lookups_are_told_apart() {
    let unknown = IdentityError::UnknownUser {
        user: "nosuch".to_owned(),
    };
    assert_eq!(resolve(&named("nosuch"), &ROOT, &Fixed), Err(unknown));
    let broken = IdentityError::Lookup {
        user: "broken".to_owned(),
        reason: "LDAP is down".to_owned(),
    };
    assert_eq!(resolve(&named("broken"), &ROOT, &Fixed), Err(broken));
}

#[test]
fn only_root_becomes_somebody_else() {
    let caller = Caller {
        uid: 1000,
        gid: 5,
        groups: vec![5, 6],
    };
    let refused = IdentityError::NotPrivileged {
        user: "root".to_owned(),
    };
    assert_eq!(resolve(&named("root"), &caller, &Fixed), Err(refused));

    let same = Identity {
        gid: 5,
        groups: vec![5, 6],
        change: Change::Same,
        ..alice()
    };
    assert_eq!(resolve(&named("alice"), &caller, &Fixed), Ok(same.clone()));
    assert_eq!(
        resolve(&Choice::Caller { uid: 1000 }, &caller, &Fixed),
        Ok(same)
    );
}

fn env(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
    pairs
        .iter()
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

#[test]
fn home_user_and_logname_follow_a_changed_identity() {
    let mut vars = env(&[
        ("HOME", "/root"),
        ("PATH", "/bin"),
        ("USER", "root"),
        ("LOGNAME", "root"),
    ]);
    alice().apply_to_env(&mut vars, &[]);
    let expected = env(&[
        ("PATH", "/bin"),
        ("HOME", "/home/alice"),
        ("USER", "alice"),
        ("LOGNAME", "alice"),
    ]);
    assert_eq!(vars, expected);
}

#[test]
fn what_env_sets_stays_and_so_does_the_callers_own() {
    let mut vars = env(&[("HOME", "/data"), ("USER", "x")]);
    alice().apply_to_env(&mut vars, &["HOME".into(), "USER".into(), "LOGNAME".into()]);
    Identity {
        change: Change::Same,
        ..alice()
    }
    .apply_to_env(&mut vars, &[]);
    assert_eq!(vars, env(&[("HOME", "/data"), ("USER", "x")]));
}

#[test]
fn only_root_is_degraded() {
    assert_eq!(alice().degraded(), None);
    assert!(Identity { uid: 0, ..alice() }.degraded().is_some());
}

#[test]
fn plain_root_is_who_is_root_without_sudo_whomever_they_name() {
    let as_somebody = |facts: Facts| Facts {
        asked: Some("alice".to_owned()),
        host_default: Some("analysis".to_owned()),
        ..facts
    };
    let caller = Facts {
        uid: 1000,
        ..root()
    };
    for (facts, expected) in [
        (root(), true),
        (sudo("0"), true),
        (sudo("1000"), false),
        // Whoever set that, it was not sudo.
        (sudo("nobody"), false),
        (caller, false),
    ] {
        assert_eq!(facts.is_plain_root(), expected, "{facts:?}");
        assert_eq!(as_somebody(facts).is_plain_root(), expected);
    }
}
