//! What clients are told, in every language. `{}` is the detail of the refusal: a list, a limit, a time.

use super::{DomainFault, Refusal};
use crate::language::Texts;

/// The text of a refusal. Lists are named, never the entry that matched.
pub(super) fn texts(refusal: &Refusal) -> Texts {
    match refusal {
        Refusal::ClientListed => Texts {
            en: "Client is on the client blacklist",
            de: "Der Client steht auf der Sperrliste der Clients",
            it: "Il client è nella lista nera dei client",
            ja: "クライアントは拒否リストに登録されています",
        },
        Refusal::SenderListed => Texts {
            en: "Sender is on the sender blacklist",
            de: "Der Absender steht auf der Sperrliste der Absender",
            it: "Il mittente è nella lista nera dei mittenti",
            ja: "差出人は拒否リストに登録されています",
        },
        Refusal::RecipientListed => Texts {
            en: "Recipient is on the recipient blacklist",
            de: "Der Empfänger steht auf der Sperrliste der Empfänger",
            it: "Il destinatario è nella lista nera dei destinatari",
            ja: "宛先は拒否リストに登録されています",
        },
        Refusal::RelayDenied => Texts {
            en: "Relay access denied",
            de: "Weiterleitung verweigert",
            it: "Inoltro negato",
            ja: "中継は許可されていません",
        },
        Refusal::HeloRequired => Texts {
            en: "Send HELO or EHLO first",
            de: "Zuerst HELO oder EHLO senden",
            it: "Inviare prima HELO o EHLO",
            ja: "先に HELO または EHLO を送信してください",
        },
        Refusal::HeloInvalid => Texts {
            en: "HELO argument is no host name and no address literal",
            de: "Das Argument von HELO ist weder Rechnername noch Adressliteral",
            it: "L'argomento di HELO non è né un nome di host né un indirizzo letterale",
            ja: "HELO の引数はホスト名でもアドレスリテラルでもありません",
        },
        Refusal::HeloNotQualified => Texts {
            en: "HELO argument is not a fully qualified host name",
            de: "Das Argument von HELO ist kein vollständiger Rechnername",
            it: "L'argomento di HELO non è un nome di host completo",
            ja: "HELO の引数は完全修飾ホスト名ではありません",
        },
        Refusal::SenderDomain(fault) => sender_domain(*fault),
        Refusal::RecipientDomain(fault) => recipient_domain(*fault),
        Refusal::RecipientUnknown => Texts {
            en: "Recipient unknown",
            de: "Empfänger unbekannt",
            it: "Destinatario sconosciuto",
            ja: "宛先が存在しません",
        },
        Refusal::RecipientUnverified => Texts {
            en: "Recipient can't be verified now, try later",
            de: "Der Empfänger lässt sich jetzt nicht prüfen, später versuchen",
            it: "Il destinatario ora non è verificabile, riprovare più tardi",
            ja: "現在宛先を確認できません。後で再送してください",
        },
        Refusal::BlockListed(_) => Texts {
            en: "Listed by {}",
            de: "Gelistet von {}",
            it: "Presente nella lista {}",
            ja: "{} に登録されています",
        },
        Refusal::Greylisted(_) => Texts {
            en: "Greylisted, try again in {} seconds",
            de: "Greylisting, in {} Sekunden erneut versuchen",
            it: "Greylisting, riprovare tra {} secondi",
            ja: "グレイリスト中です。{} 秒後に再送してください",
        },
        Refusal::TooManyRecipients(_) => Texts {
            en: "Too many recipients, the limit is {}",
            de: "Zu viele Empfänger, höchstens {}",
            it: "Troppi destinatari, il limite è {}",
            ja: "宛先が多すぎます。上限は {} です",
        },
        about_the_message => message(about_the_message),
    }
}

fn message(refusal: &Refusal) -> Texts {
    match refusal {
        Refusal::TooLarge(_) => Texts {
            en: "Message exceeds the limit of {} octets",
            de: "Die Nachricht überschreitet die Grenze von {} Byte",
            it: "Il messaggio supera il limite di {} byte",
            ja: "メッセージが上限の {} バイトを超えています",
        },
        Refusal::HeaderTooLarge(_) => Texts {
            en: "Message header exceeds the limit of {} octets",
            de: "Der Kopf der Nachricht überschreitet die Grenze von {} Byte",
            it: "L'intestazione del messaggio supera il limite di {} byte",
            ja: "メッセージのヘッダーが上限の {} バイトを超えています",
        },
        Refusal::MailLoop => Texts {
            en: "Too many hops, this looks like a mail loop",
            de: "Zu viele Stationen, wohl eine Mail-Schleife",
            it: "Troppi passaggi, probabile ciclo di posta",
            ja: "転送回数が多すぎます。メールループと思われます",
        },
        Refusal::BareLineEnd => Texts {
            en: "Message holds a bare CR or LF",
            de: "Die Nachricht enthält ein einzelnes CR oder LF",
            it: "Il messaggio contiene un CR o LF isolato",
            ja: "メッセージに単独の CR または LF が含まれています",
        },
        Refusal::Nul => Texts {
            en: "Message holds a NUL octet",
            de: "Die Nachricht enthält ein NUL-Byte",
            it: "Il messaggio contiene un byte NUL",
            ja: "メッセージに NUL バイトが含まれています",
        },
        Refusal::StorageFull => Texts {
            en: "Insufficient storage, try later",
            de: "Nicht genug Speicherplatz, später versuchen",
            it: "Spazio insufficiente, riprovare più tardi",
            ja: "空き容量が不足しています。後で再送してください",
        },
        Refusal::StorageFailed => Texts {
            en: "Storage failed, try later",
            de: "Speichern misslungen, später versuchen",
            it: "Archiviazione non riuscita, riprovare più tardi",
            ja: "保存に失敗しました。後で再送してください",
        },
        Refusal::QuarantineFull => Texts {
            en: "Quarantine is full, try later",
            de: "Die Quarantäne ist voll, später versuchen",
            it: "La quarantena è piena, riprovare più tardi",
            ja: "隔離領域に空きがありません。後で再送してください",
        },
        Refusal::ScannerFailed => Texts {
            en: "Content check failed, try later",
            de: "Inhaltsprüfung misslungen, später versuchen",
            it: "Controllo del contenuto non riuscito, riprovare più tardi",
            ja: "内容の検査に失敗しました。後で再送してください",
        },
        Refusal::NoTransaction => Texts {
            en: "There is no transaction: MAIL comes first",
            de: "Es gibt keine Transaktion: MAIL kommt zuerst",
            it: "Nessuna transazione in corso: prima serve MAIL",
            ja: "トランザクションがありません。先に MAIL が必要です",
        },
        _ => Texts {
            en: "Busy, try later",
            de: "Überlastet, später versuchen",
            it: "Sovraccarico, riprovare più tardi",
            ja: "混雑しています。後で再送してください",
        },
    }
}

const fn sender_domain(fault: DomainFault) -> Texts {
    match fault {
        DomainFault::NotQualified => Texts {
            en: "Sender domain is not a fully qualified name",
            de: "Die Domain des Absenders ist kein vollständiger Name",
            it: "Il dominio del mittente non è un nome completo",
            ja: "差出人のドメインは完全修飾名ではありません",
        },
        DomainFault::Unknown => Texts {
            en: "Sender domain not found",
            de: "Die Domain des Absenders gibt es nicht",
            it: "Il dominio del mittente non esiste",
            ja: "差出人のドメインが見つかりません",
        },
        DomainFault::NullMx => Texts {
            en: "Sender domain takes no mail (null MX)",
            de: "Die Domain des Absenders nimmt keine Mail an (Null MX)",
            it: "Il dominio del mittente non accetta posta (null MX)",
            ja: "差出人のドメインはメールを受け付けません (null MX)",
        },
        DomainFault::Unavailable => Texts {
            en: "Sender domain can't be looked up now, try later",
            de: "Die Domain des Absenders lässt sich jetzt nicht nachschlagen, später versuchen",
            it: "Il dominio del mittente ora non è verificabile, riprovare più tardi",
            ja: "現在差出人のドメインを確認できません。後で再送してください",
        },
    }
}

const fn recipient_domain(fault: DomainFault) -> Texts {
    match fault {
        DomainFault::NotQualified => Texts {
            en: "Recipient domain is not a fully qualified name",
            de: "Die Domain des Empfängers ist kein vollständiger Name",
            it: "Il dominio del destinatario non è un nome completo",
            ja: "宛先のドメインは完全修飾名ではありません",
        },
        DomainFault::Unknown => Texts {
            en: "Recipient domain not found",
            de: "Die Domain des Empfängers gibt es nicht",
            it: "Il dominio del destinatario non esiste",
            ja: "宛先のドメインが見つかりません",
        },
        DomainFault::NullMx => Texts {
            en: "Recipient domain takes no mail (null MX)",
            de: "Die Domain des Empfängers nimmt keine Mail an (Null MX)",
            it: "Il dominio del destinatario non accetta posta (null MX)",
            ja: "宛先のドメインはメールを受け付けません (null MX)",
        },
        DomainFault::Unavailable => Texts {
            en: "Recipient domain can't be looked up now, try later",
            de: "Die Domain des Empfängers lässt sich jetzt nicht nachschlagen, später versuchen",
            it: "Il dominio del destinatario ora non è verificabile, riprovare più tardi",
            ja: "現在宛先のドメインを確認できません。後で再送してください",
        },
    }
}
