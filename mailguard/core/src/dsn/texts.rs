//! What reports say to people, in every language. `{}` is filled in.

use super::Action;
use crate::language::Texts;

/// The subject of a report whose weightiest news is this.
pub(super) fn subject(action: Action) -> Texts {
    match action {
        Action::Failed => Texts {
            en: "Undeliverable: your message could not be delivered",
            de: "Unzustellbar: Ihre Nachricht konnte nicht zugestellt werden",
            it: "Non recapitabile: il messaggio non è stato consegnato",
            ja: "配信不能: メッセージを配信できませんでした",
        },
        Action::Delayed => Texts {
            en: "Delayed: your message has not been delivered yet",
            de: "Verzögert: Ihre Nachricht ist noch nicht zugestellt",
            it: "In ritardo: il messaggio non è ancora stato consegnato",
            ja: "配信遅延: メッセージはまだ配信されていません",
        },
        Action::Relayed => Texts {
            en: "Relayed: your message was passed on",
            de: "Weitergegeben: Ihre Nachricht ging an den nächsten Server",
            it: "Inoltrato: il messaggio è passato al server successivo",
            ja: "中継済み: メッセージを次のサーバーに渡しました",
        },
    }
}

/// What happened to the recipients that follow.
pub(super) fn news(action: Action) -> Texts {
    match action {
        Action::Failed => Texts {
            en: "Your message could not be delivered to the following recipients, and no further attempt will be made.",
            de: "Ihre Nachricht konnte den folgenden Empfängern nicht zugestellt werden; es wird kein weiterer Versuch unternommen.",
            it: "Il messaggio non è stato consegnato ai seguenti destinatari e non verranno fatti altri tentativi.",
            ja: "次の宛先にメッセージを配信できませんでした。再試行は行いません。",
        },
        Action::Delayed => Texts {
            en: "Your message has not been delivered to the following recipients yet. You need not send it again: attempts go on until {}.",
            de: "Ihre Nachricht ist den folgenden Empfängern noch nicht zugestellt. Sie brauchen sie nicht erneut zu senden: Es wird bis {} weiter versucht.",
            it: "Il messaggio non è ancora stato consegnato ai seguenti destinatari. Non occorre inviarlo di nuovo: i tentativi continuano fino a {}.",
            ja: "次の宛先にはメッセージがまだ配信されていません。再送の必要はありません。{} まで再試行を続けます。",
        },
        Action::Relayed => Texts {
            en: "Your message was passed on to other servers for the following recipients. They will not report its arrival.",
            de: "Ihre Nachricht wurde für die folgenden Empfänger an andere Server übergeben, die die Zustellung nicht melden.",
            it: "Il messaggio è stato passato ad altri server per i seguenti destinatari; questi non ne notificheranno l'arrivo.",
            ja: "次の宛先へのメッセージは他のサーバーに渡しました。到着の通知は行われません。",
        },
    }
}

/// Who speaks.
pub(super) const INTRODUCTION: Texts = Texts {
    en: "This is the mail system at {}.",
    de: "Dies ist das Mailsystem auf {}.",
    it: "Questo è il sistema di posta di {}.",
    ja: "こちらは {} のメールシステムです。",
};

/// The whole message comes with the report.
pub(super) const MESSAGE_RETURNED: Texts = Texts {
    en: "Your message is returned below.",
    de: "Ihre Nachricht ist unten angefügt.",
    it: "Il messaggio è riportato qui sotto.",
    ja: "元のメッセージを以下に添付します。",
};

/// Its header does.
pub(super) const HEADER_RETURNED: Texts = Texts {
    en: "The header of the message is returned below.",
    de: "Der Kopf der Nachricht ist unten angefügt.",
    it: "L'intestazione del messaggio è riportata qui sotto.",
    ja: "元のメッセージのヘッダーを以下に添付します。",
};

/// By what the administrator finds it.
pub(super) const REFERENCE: Texts = Texts {
    en: "Ask your administrator with this reference: {}",
    de: "Fragen Sie Ihren Administrator mit dieser Referenz: {}",
    it: "Per informazioni indicare all'amministratore questo riferimento: {}",
    ja: "お問い合わせの際は、管理者にこの参照番号をお伝えください: {}",
};

/// The subject of what the administrator is told.
pub(super) const WITHHELD_SUBJECT: Texts = Texts {
    en: "Withheld: a message could not be delivered",
    de: "Zurückgehalten: Eine Nachricht konnte nicht zugestellt werden",
    it: "Trattenuto: un messaggio non è stato consegnato",
    ja: "保留: メッセージを配信できませんでした",
};

/// What the administrator is told of the recipients that follow.
pub(super) const WITHHELD: Texts = Texts {
    en: "The message below could not be delivered to the following recipients. Its sender was not told, and it is withheld in the quarantine.",
    de: "Die folgende Nachricht konnte diesen Empfängern nicht zugestellt werden. Ihr Absender wurde nicht benachrichtigt; sie liegt in der Quarantäne.",
    it: "Il messaggio qui sotto non è stato consegnato ai seguenti destinatari. Il mittente non è stato avvisato; il messaggio è trattenuto in quarantena.",
    ja: "次のメッセージは以下の宛先に配信できませんでした。差出人には通知されておらず、メッセージは隔離されています。",
};

/// What the administrator can do.
pub(super) const WHAT_TO_DO: Texts = Texts {
    en: "Look at it with `mailguard quarantine show {}`, send it on with `mailguard quarantine release {}`.",
    de: "Ansehen: `mailguard quarantine show {}`; zustellen: `mailguard quarantine release {}`.",
    it: "Per vederlo: `mailguard quarantine show {}`; per inoltrarlo: `mailguard quarantine release {}`.",
    ja: "確認: `mailguard quarantine show {}` / 配信: `mailguard quarantine release {}`",
};
