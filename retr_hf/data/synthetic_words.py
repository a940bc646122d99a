"""The vocabulary of the synthetic world: styles and themes common to all domains, brands and objects of each one."""

# Themes move on along a hidden cycle (another one for every seed); their order here means nothing.
THEMES = (
    "picnic",
    "stargazing",
    "birthday",
    "winter",
    "wedding",
    "bonfire",
    "carnival",
    "fishing",
    "study",
    "harvest",
    "holiday",
    "halloween",
)
STYLES = ("wicker", "copper", "linen", "walnut", "enamel")

BRANDS = {
    "garden": ("Fernhill", "Mossbank", "Thornbury", "Greenlow", "Hazelmere", "Ivybridge", "Rowancroft", "Meadowlark"),
    "kitchen": ("Panworth", "Saltmarsh", "Breadlow", "Kettleby", "Simmerly", "Oatham", "Larderby", "Spicewell"),
    "music": ("Tonecraft", "Quaverley", "Octavian", "Reedham", "Chordwell", "Lyrebird", "Tempora", "Cadenza"),
    "playroom": ("Jollikin", "Toybridge", "Merrydew", "Tumbletop", "Pipkin", "Wobblesea", "Gigglebrook", "Puddleton"),
    "stationery": ("Inkwell", "Quillby", "Paperleigh", "Foliant", "Scribewood", "Marginalia", "Nibworth", "Vellumdale"),
    "bathroom": ("Steamwood", "Aquaborn", "Soapstead", "Lathermore", "Ripplesea", "Misthaven", "Bathurst", "Showerby"),
    "camping": ("Trailmark", "Northpitch", "Emberfall", "Packridge", "Wildmoor", "Summitry", "Canyonet", "Basecroft"),
    "cycling": ("Spokesman", "Velodale", "Gearhart", "Pedalton", "Chainley", "Rimstead", "Saddleworth", "Freewheel"),
    "pets": ("Pawsome", "Whiskerly", "Barkwell", "Furrington", "Tailsworth", "Purrfield", "Kennelby", "Featherlee"),
    "sewing": ("Threadneedle", "Seamoor", "Hemingby", "Bobbinet", "Stitchwell", "Patchley", "Loomis", "Tuckerfold"),
}
OBJECTS = {
    "garden": ("planter", "trellis", "rake", "watering can", "bench", "birdhouse", "wheelbarrow", "trowel"),
    "kitchen": ("kettle", "skillet", "ladle", "bread bin", "whisk", "colander", "teapot", "spice rack"),
    "music": ("ukulele", "drum", "music stand", "metronome", "flute", "tambourine", "banjo", "piano stool"),
    "playroom": ("puzzle", "rocking horse", "kite", "dollhouse", "spinning top", "puppet", "marble run", "yo-yo"),
    "stationery": ("notebook", "pen holder", "letter opener", "folder", "ruler", "stapler", "bookmark", "desk tray"),
    "bathroom": ("towel rail", "soap dish", "bath mat", "mirror", "laundry bin", "toothbrush cup", "sponge", "stool"),
    "camping": ("tent", "lantern", "hammock", "stove", "cooler", "backpack", "camp chair", "sleeping bag"),
    "cycling": ("bell", "basket", "pannier", "handlebar", "saddle", "bottle cage", "mudguard", "bike pump"),
    "pets": ("cat bed", "dog collar", "aquarium", "bird cage", "scratching post", "food bowl", "leash", "hutch"),
    "sewing": ("pin cushion", "thimble", "yarn bowl", "needle case", "button box", "loom", "scissors", "dress form"),
}
