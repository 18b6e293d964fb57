"""Prompts for sounds: texts to be spoken, in the manner of a register.

A generator of sounds reads its prompt aloud, so nothing in it speaks about a sound.
"""

from __future__ import annotations

import string
from typing import Final

import numpy as np

from gas.datasets.words import Category
from gas.generation.prompts.lexicon import ACTIONS, COLOURS, ITEMS, PERSONS, PLACES, POSITIONS, TIMES, WEATHERS
from gas.generation.prompts.scenes import Scene, pick, with_article
from gas.generation.prompts.terms import LengthBand, Register

__all__ = ["compose_speech"]

_R = Register
_RANGE: Final = {LengthBand.SHORT: (4, 12), LengthBand.MEDIUM: (13, 28), LengthBand.LONG: (29, 60)}
_TRIES: Final = 40


def _split(text: str) -> tuple[str, ...]:
    return tuple(" ".join(entry.split()) for entry in text.split(";") if entry.strip())


_SLOTS: Final[dict[str, tuple[str, ...]]] = {
    "name": _split("""
        Amina; Boris; Clara; Dmitri; Elena; Farid; Grace; Hugo; Ines; Jonas; Keiko; Lars; Maria; Nadim; Olga; Pablo;
        Quentin; Rosa; Samuel; Tara; Uma; Viktor; Wanda; Yusuf; Zoe; Mister Okafor; Doctor Lindqvist; Aunt Bea
    """),
    "town": _split("""
        Ashford; Brightwater; Calder Bay; Dunmore; Eastleigh; Fernhill; Glenrock; Harrow; Kingsbridge; Lindale;
        Marlow; Northgate; Oakham; Port Ellis; Redcliff; Saltburn; Thornbury; Westbrook; Yarrow; Zeeland
    """),
    "day": _split("""
        Monday; Tuesday; Wednesday; Thursday; Friday; Saturday; Sunday; the third of May; the last day of June; New
        Year's Eve
    """),
    "hour": _split("""
        six in the morning; half past seven; a quarter to nine; ten sharp; noon; two in the afternoon; five to four;
        eight tonight; midnight
    """),
    "number": _split("""
        three; seven; eleven; fourteen; twenty-two; thirty-six; forty-eight; ninety; one hundred and twelve; six
        hundred; four thousand
    """),
    "thing": _split("""
        the spare key; a parcel; the blue folder; the train tickets; a broken kettle; the ladder; her passport; the
        old radio; a box of records; the garden hose; the invoice; a violin case; the medicine; two bags of cement;
        the camera; a jar of honey; the car seat
    """),
    "job": _split("""
        plumber; teacher; night nurse; harbour pilot; beekeeper; bus driver; locksmith; choir leader; carpenter; vet;
        dentist; tax adviser
    """),
    "event": _split("""
        the bridge was closed; the water was turned off; the concert was moved indoors; a lorry lost its load; the
        river rose overnight; the power failed; the market opened late; the strike was called off; a window was
        broken; the school hall was flooded; the lift got stuck; the last ferry was cancelled; a wild boar ran through
        the station; the museum found a lost letter
    """),
    "reason": _split("""
        nobody had read the notice; the pump had frozen; the forecast was wrong; a cable was cut by mistake; the keys
        were in the wrong drawer; the committee could not agree; the roof was older than we thought; a single screw
        had come loose
    """),
    "plan": _split("""
        repaint the fence; move the piano; learn to swim; sell the van; plant cherry trees; walk the whole coast; open
        a small bakery; fix the gutter; write to the council; record the old songs; visit the cousins; start a night
        class
    """),
    "feeling": _split("relieved; nervous; proud; tired; curious; annoyed; hopeful; calm; grateful; embarrassed"),
    "food": _split("""
        lentil soup; burnt toast; apricot jam; cold noodles; a plum cake; fried fish; rice with peas; black coffee;
        ginger tea; a cheese pie
    """),
}

_COMMON: Final = _split("""
    I saw {scene} {place}, and nobody believed me; On {day}, {event} because {reason}; We are still looking for
    {thing}, so please check again; My {job} told me to wait until {hour}; There were {number} people in the room and
    only one window; To be honest, I felt {feeling} about the whole thing; {name} wants to {plan} before the winter
    comes; It smelled of {food} all the way down to the street; You could see {scene} {place}, {action}; They counted
    {number} of them, twice, and the number did not change; The trouble began when {event}; Nobody in {town} had
    expected that; We met {place} {time}, {weather}; If you ask {name}, {reason}; Bring {thing} and something warm to
    wear; I have never been so {feeling} in my life; A {job} from {town} offered to help without being asked; By
    {hour} everything was quiet again; The only thing left was {thing}; It took {number} minutes, not a second less;
    {name} laughed, put down {thing}, and left; Some say that {reason}, but I doubt it; First came the wind, then
    {event}; There is {scene} {place} and it will not move; What would you do in my place, {name}; For lunch there was
    {food} again; The road to {town} is open as of {hour}; We would rather {plan} than argue any longer; She wrote it
    all down on the back of a ticket from {town}; Try to imagine {scene}, {action}; {item} {where}, and {person} keeps
    talking about it; Has {name} told you about {item} and {scene}; {person} from {town} swears that {item} {where};
    Around {hour} we counted {number} visitors; I traded {item} for {thing}; My neighbour, {person}, was {doing};
    Remember {person} {place}; Do not forget {item} and a pen; On {day} {person} rang and asked for {item}; All of
    {town} is talking about {person} and {item}; {name} says {food} tastes better {place}; They sent {person} instead,
    {weather}; You will find {item} {place}, just past {town}; We heard {scene}, then {person} shouted that {reason};
    Turn left where {item} {where}; {number} metres further on, {person} was {doing}; It was {time}, {weather}, and
    {name} felt {feeling}; Somebody painted {item} on the side of the {job}'s van
""")

_OPENINGS: Final[dict[Register, tuple[str, ...]]] = {
    _R.NEWS: _split("""
        Good evening, this is the news from {town}; In {town} this {day}, {event}; Officials in {town} confirmed that
        {event}; Our top story at {hour}: {event}; Police in {town} are looking for {scene}, last seen {place}; A
        spokesperson said {reason}
    """),
    _R.INTERVIEW: _split("""
        Well, it all started when {event}; That is a good question, {name}; I was a {job} in {town} for {number}
        years; People always ask me about {thing}; Let me go back a little
    """),
    _R.PHONE_CALL: _split("""
        Hello, is that {name}; Hi {name}, can you hear me now; Good morning, I am calling about {thing}; Sorry, the
        line is bad, say that again; Yes, this is the {job} from {town}; Listen, {name}, I have only got a minute
    """),
    _R.VOICE_MESSAGE: _split("""
        Hey {name}, it's me; Hi, just a quick one before {hour}; {name}, call me back when you hear this; Guess what,
        {event}; So, I forgot {thing} {place}; Me again, still {place}
    """),
    _R.PODCAST: _split("""
        Welcome back, I am {name} and today we talk about {thing}; So picture this, {scene} {place}; Before we start,
        a word about {town}; My guest is a {job} who decided to {plan}; Last week I promised you a story
    """),
    _R.RADIO: _split("""
        You are listening to Radio {town}; It is {hour} and the sun is nowhere to be seen; Traffic first: {event};
        Coming up after the weather, {name} on how to {plan}; A listener from {town} writes in about {thing}
    """),
    _R.AUDIOBOOK: _split("""
        Chapter {number}; {name} had never seen {scene} before; The winter that {event}, nobody slept; On the morning
        of {day}, {name} found {thing}; There was once a {job} in {town} who kept {thing} under the bed
    """),
    _R.ANNOUNCEMENT: _split("""
        Attention please, the service of {hour} to {town} is delayed; Would the owner of {thing} please come to the
        front desk; Ladies and gentlemen, {event}; This is a safety notice for all visitors; Platform {number} is closed
        because {reason}; Dear customers, we close at {hour}
    """),
    _R.DOCUMENTARY: _split("""
        For {number} years, {town} had no doctor; At first light, {scene} can be found {place}; What looks like
        {thing} is in truth something older; Few people remember the night when {event}; The {job}s of {town} still do
        it by hand
    """),
    _R.STUDIO: _split("""
        New in {town}: everything you need to {plan}; Tired of waiting for a {job}; Imagine {food}, ready by {hour};
        From {day}, {number} shops offer you {thing} at half the price; Some things cannot be hurried
    """),
}

_CLOSINGS: Final[dict[Register, tuple[str, ...]]] = {
    _R.NEWS: _split("""
        More on this at {hour}; Back to you in the studio, {name}; We will keep you informed; The inquiry goes on
    """),
    _R.INTERVIEW: _split("""
        And that is really all I know; I would do it again; Does that answer your question; Ask {name}, it is all true
    """),
    _R.PHONE_CALL: _split("""
        All right, see you at {hour}; Thanks, and say hello to {name}; I have to hang up now; Could you spell that for
        me, please
    """),
    _R.VOICE_MESSAGE: _split("Anyway, talk soon; Okay, bye; Don't tell {name}; Write me when you are in {town}"),
    _R.PODCAST: _split("Stay with us; And that changes everything; We will be right back; Tell me I am wrong"),
    _R.RADIO: _split("And now, music; Drive carefully; The time is {hour}; Stay tuned, {town}"),
    _R.AUDIOBOOK: _split("""
        Nobody answered; The door closed behind her; And then it began to snow; He never spoke of it again
    """),
    _R.ANNOUNCEMENT: _split("""
        Thank you for your patience; Please keep the doors clear; We apologise for the delay; Please follow the staff
    """),
    _R.DOCUMENTARY: _split("Not everyone agrees; It will happen again next spring; Only the {job} knows why"),
    _R.STUDIO: _split("""
        Come and see for yourself; Call {name} today; Because {town} deserves better; Open until {hour}
    """),
}


def compose_speech(scene: Scene, register: Register, band: LengthBand, rng: np.random.Generator) -> str:
    """A text to be spoken.

    Args:
        scene: What some of its sentences speak of.
        register: Who speaks, to whom.
        band: How long.
        rng: Decides everything else.
    """
    low, high = _RANGE[band]
    openings = _OPENINGS.get(register, _COMMON)
    text = ""
    for _ in range(_TRIES):
        target = int(rng.integers(low, high + 1))
        text = _sentence(
            pick(rng, openings if band is not LengthBand.SHORT or rng.random() < 0.5 else _COMMON), scene, rng
        )
        order = [_COMMON[at] for at in rng.permutation(len(_COMMON))]
        for template in order:
            more = _sentence(template, scene, rng)
            if len(text.split()) >= target:
                break
            if len(text.split()) + len(more.split()) <= high:
                text = f"{text} {more}"
        end = _sentence(pick(rng, _CLOSINGS.get(register, _COMMON)), scene, rng)
        if len(text.split()) + len(end.split()) <= high and rng.random() < 0.6:
            text = f"{text} {end}"
        if low <= len(text.split()) <= high:
            return text
    return text


def _sentence(template: str, scene: Scene, rng: np.random.Generator) -> str:
    fields = {name for _, name, _, _ in string.Formatter().parse(template) if name}
    own = {
        "scene": scene.subject,
        "place": "" if scene.complete else pick(rng, PLACES[scene.category]),
        "action": "right before my eyes" if scene.complete else pick(rng, ACTIONS[scene.category]),
        "doing": pick(rng, ACTIONS[Category.PORTRAIT]),
        "time": pick(rng, TIMES),
        "weather": pick(rng, WEATHERS),
    }
    thing = f"{pick(rng, COLOURS)} {pick(rng, ITEMS)}"
    own |= {"item": with_article(thing), "where": pick(rng, POSITIONS), "person": with_article(pick(rng, PERSONS))}
    if rng.random() < 0.5:
        own["thing"] = own["item"]
    values = {name: own[name] if name in own else pick(rng, _SLOTS[name]) for name in sorted(fields)}
    text = " ".join(template.format(**values).split()).replace(" ,", ",")
    mark = "?" if text.lower().startswith(_QUESTIONS) or ", can you" in text else "."
    return f"{text[0].upper()}{text[1:]}{mark}"


_QUESTIONS: Final = ("what would", "does that", "hello, is that", "could you", "would the owner", "tired of")
